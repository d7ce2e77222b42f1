"""What provider plugins share: the gRPC server, and the form in which a resource type is written.

A provider is a `Provider` whose `resource_type(token)` returns a `ResourceType`, one for each
type it knows, and raises `UnsupportedTypeError(token, provider)` for the others:

    class Bucket(ResourceType):
        def check(self, call, olds, news): ...                  # -> inputs with defaults
        def diff(self, call, id_, old_inputs, old_outputs, news): ...   # -> Diff
        def create(self, call, inputs): ...                     # -> (id, outputs)
        def read(self, call, id_, inputs, outputs): ...         # -> Live, or None when it is gone
        def update(self, call, id_, old_inputs, old_outputs, news): ... # -> outputs
        def delete(self, call, id_, inputs, outputs): ...

    def main() -> None:
        serve(AwsProvider("aws", "7.51.1"))

Properties are dicts as described in `property_values`. Outputs get the secrets of the inputs at
the same place by themselves; wrap in `Secret` what is secret beyond that. `preview_create` and
`preview_update` return the outputs that are already known: by default the inputs.

Errors: raise `ProviderError` (or `CheckFailedError`, with a reason for each property;
`InitFailedError` when the object exists but did not become ready). Other exceptions reach the
user with their type and text. Texts that are secret in the request are cleared from all messages.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

from infra.local.adapters.property_values import (
    Properties,
    from_struct,
    path_text,
    secret_strings,
    to_struct,
    with_secrets_of,
)
from infra.local.adapters.provider_contract import (
    Autoname,
    Call,
    CancelledError,
    CheckFailedError,
    Diff,
    InitFailedError,
    Live,
    Provider,
    ProviderError,
    ResourceType,
    UnsupportedTypeError,
    parse_path,
    program_root,
    replaced_by,
    without_ignored,
)

__all__ = [
    "Autoname",
    "Call",
    "CancelledError",
    "CheckFailedError",
    "Diff",
    "InitFailedError",
    "Live",
    "Provider",
    "ProviderError",
    "ResourceType",
    "UnsupportedTypeError",
    "parse_path",
    "program_root",
    "redact",
    "replaced_by",
    "run_server",
    "serve",
    "without_ignored",
]

# The engine's own limit (sdk/go/common/util/rpcutil): 400 MiB.
GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", 400 * 1024 * 1024),
    ("grpc.max_send_message_length", 400 * 1024 * 1024),
)
# An awaited resource holds its thread; the engine runs as many at once as `--parallel` says.
MAX_CALLS = 256
_SHORTEST_REDACTED = 4
_ENGINE_POLL_SECONDS = 1.0
# Time for calls to notice the end, such as to stop a helm; the engine kills a plugin after 5 s.
_END_SECONDS = 3.0


def serve(provider: Provider) -> NoReturn:
    """Serves the provider to the engine that started this process, until it is interrupted."""
    cancelled = threading.Event()
    engine_address = next((arg for arg in sys.argv[1:] if re.search(r":\d+$", arg)), "")
    servicer = _Servicer(provider, _EngineLog(engine_address), cancelled)
    run_server(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server),
        on_interrupt=cancelled.set,
    )


def run_server(
    add_servicer: Callable[[grpc.Server], None], on_interrupt: Callable[[], None] = lambda: None
) -> NoReturn:
    """Serves on a free loopback port and prints it.

    Ends without a word when interrupted, and when the engine that started it is gone.
    """
    engine = os.getppid()
    server = grpc.server(ThreadPoolExecutor(max_workers=MAX_CALLS), options=GRPC_OPTIONS)
    add_servicer(server)
    port = server.add_insecure_port("127.0.0.1:0")
    ended = threading.Event()

    def end(*_: object) -> None:
        ended.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    server.start()
    print(port, flush=True)
    while not ended.wait(_ENGINE_POLL_SECONDS) and os.getppid() == engine:
        pass
    on_interrupt()
    server.stop(grace=_END_SECONDS).wait()
    # Calls that still wait for something must not keep the plugin alive.
    os._exit(0)


class _EngineLog:
    """Sends messages to the engine's terminal."""

    def __init__(self, address: str) -> None:
        self._stub: Any = None
        self._shown: dict[str, str] = {}
        self.connect(address)

    def connect(self, address: str) -> None:
        if address and self._stub is None:
            channel = grpc.insecure_channel(address, options=GRPC_OPTIONS)
            self._stub = engine_pb2_grpc.EngineStub(channel)

    def __call__(self, urn: str, severity: str, message: str, ephemeral: bool) -> None:
        if self._stub is None or (ephemeral and self._shown.get(urn, "") == message):
            return
        if ephemeral:
            self._shown[urn] = message
        request = engine_pb2.LogRequest(
            severity=engine_pb2.LogSeverity.Value(severity),
            message=message,
            urn=urn,
            ephemeral=ephemeral,
        )
        try:
            self._stub.Log(request, timeout=5)
        except grpc.RpcError:
            # A lost progress line must not fail the operation that it describes.
            self._stub = None


class _Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Translates the engine's calls to a `Provider`."""

    def __init__(self, provider: Provider, log: _EngineLog, cancelled: threading.Event) -> None:
        self._provider, self._log, self._cancelled = provider, log, cancelled

    def Handshake(self, request, context):
        del context
        self._log.connect(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True,
            accept_resources=False,
            accept_outputs=False,
            supports_autonaming_configuration=True,
        )

    def Attach(self, request, context):
        del context
        self._log.connect(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request, context):
        del request, context
        return plugin_pb2.PluginInfo(version=self._provider.version)

    def GetSchema(self, request, context):
        del request, context
        return provider_pb2.GetSchemaResponse(
            schema=f'{{"name":"{self._provider.name}","version":"{self._provider.version}"}}'
        )

    def CheckConfig(self, request, context):
        def check() -> provider_pb2.CheckResponse:
            news = from_struct(request.news)
            config = self._provider.check_config(from_struct(request.olds), news)
            return provider_pb2.CheckResponse(inputs=to_struct(config))

        return self._check(context, check, from_struct(request.news))

    def DiffConfig(self, request, context):
        def diff() -> provider_pb2.DiffResponse:
            olds, news = from_struct(request.old_inputs), from_struct(request.news)
            return _diff_response(self._provider.diff_config(olds, news))

        return self._guard(context, diff)

    def Configure(self, request, context):
        def configure() -> provider_pb2.ConfigureResponse:
            self._provider.configure(from_struct(request.args))
            return provider_pb2.ConfigureResponse(
                acceptSecrets=True,
                supportsPreview=True,
                acceptResources=False,
                acceptOutputs=False,
                supports_autonaming_configuration=True,
            )

        return self._guard(context, configure, from_struct(request.args))

    def Check(self, request, context):
        news = from_struct(request.news)

        def check() -> provider_pb2.CheckResponse:
            call = self._call(
                request, random_seed=bytes(request.randomSeed), autoname=_autoname(request)
            )
            checked = self._type(call).check(call, from_struct(request.olds), news)
            return provider_pb2.CheckResponse(inputs=to_struct(checked))

        return self._check(context, check, news)

    def Diff(self, request, context):
        news = from_struct(request.news)

        def diff() -> provider_pb2.DiffResponse:
            call = self._call(request, ignore_changes=tuple(request.ignoreChanges))
            found = self._type(call).diff(
                call, request.id, from_struct(request.old_inputs), from_struct(request.olds), news
            )
            return _diff_response(found)

        return self._guard(context, diff, news)

    def Create(self, request, context):
        inputs = from_struct(request.properties)

        def create() -> provider_pb2.CreateResponse:
            call = self._call(request, preview=request.preview, timeout_seconds=request.timeout)
            kind = self._type(call)
            if request.preview:
                id_, outputs = "", kind.preview_create(call, inputs)
            else:
                id_, outputs = kind.create(call, inputs)
            properties = to_struct(with_secrets_of(outputs, inputs))
            return provider_pb2.CreateResponse(id=id_, properties=properties)

        return self._guard(context, create, inputs)

    def Read(self, request, context):
        inputs = from_struct(request.inputs)

        def read() -> provider_pb2.ReadResponse:
            call = self._call(request, timeout_seconds=request.timeout)
            live = self._type(call).read(call, request.id, inputs, from_struct(request.properties))
            if live is None:
                return provider_pb2.ReadResponse(id="")
            return provider_pb2.ReadResponse(
                id=live.id,
                properties=to_struct(with_secrets_of(live.outputs, inputs)),
                inputs=to_struct(with_secrets_of(live.inputs, inputs)),
            )

        return self._guard(context, read, inputs)

    def Update(self, request, context):
        news = from_struct(request.news)

        def update() -> provider_pb2.UpdateResponse:
            call = self._call(
                request,
                preview=request.preview,
                timeout_seconds=request.timeout,
                ignore_changes=tuple(request.ignoreChanges),
            )
            kind = self._type(call)
            operation = kind.preview_update if request.preview else kind.update
            outputs = operation(
                call, request.id, from_struct(request.old_inputs), from_struct(request.olds), news
            )
            return provider_pb2.UpdateResponse(properties=to_struct(with_secrets_of(outputs, news)))

        return self._guard(context, update, news)

    def Delete(self, request, context):
        inputs = from_struct(request.old_inputs)

        def delete() -> empty_pb2.Empty:
            call = self._call(request, timeout_seconds=request.timeout)
            self._type(call).delete(call, request.id, inputs, from_struct(request.properties))
            return empty_pb2.Empty()

        return self._guard(context, delete, inputs)

    def Invoke(self, request, context):
        arguments = from_struct(request.args)

        def invoke() -> provider_pb2.InvokeResponse:
            result = self._provider.invoke(request.tok, arguments)
            response = provider_pb2.InvokeResponse()
            getattr(response, "return").CopyFrom(to_struct(result))
            return response

        return self._guard(context, invoke, arguments)

    def Construct(self, request, context):
        return self._guard(context, lambda: self._refuse(request.type))

    def Call(self, request, context):
        return self._guard(context, lambda: self._refuse(request.tok))

    def Cancel(self, request, context):
        del request, context
        self._cancelled.set()
        return empty_pb2.Empty()

    def _refuse(self, token: str) -> NoReturn:
        raise UnsupportedTypeError(token, self._provider.name)

    def _call(self, request: Any, **more: Any) -> Call:
        urn = request.urn
        return Call(
            urn=urn,
            type=request.type or urn.split("::")[2].rsplit("$", 1)[-1],
            name=request.name or urn.split("::", 3)[-1],
            cancelled=self._cancelled,
            log=lambda severity, text, ephemeral: self._log(urn, severity, text, ephemeral),
            **more,
        )

    def _type(self, call: Call) -> ResourceType:
        return self._provider.resource_type(call.type)

    def _check(self, context: Any, work: Callable[[], Any], inputs: Properties) -> Any:
        """Like `_guard`, with refused inputs as the failures of an answer."""

        def checked() -> provider_pb2.CheckResponse:
            try:
                return work()
            except CheckFailedError as error:
                return provider_pb2.CheckResponse(
                    failures=[
                        provider_pb2.CheckFailure(property=path, reason=redact(reason, inputs))
                        for path, reason in error.failures
                    ]
                )

        return self._guard(context, checked, inputs)

    def _guard(
        self, context: Any, work: Callable[[], Any], inputs: Properties | None = None
    ) -> Any:
        """Runs the work; turns an exception into the gRPC error that the engine expects."""
        try:
            return work()
        except InitFailedError as error:
            reasons = [redact(reason, inputs) for reason in error.reasons]
            _abort_initialised(context, error, reasons, inputs or {})
        except CancelledError as error:
            context.abort(grpc.StatusCode.CANCELLED, redact(str(error), inputs))
        except ProviderError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, redact(str(error), inputs))
        except Exception as error:
            traceback.print_exc()
            text = redact(f"{type(error).__name__}: {error}", inputs)
            context.abort(grpc.StatusCode.UNKNOWN, text)
        raise AssertionError("abort always raises")


def redact(message: str, inputs: Properties | None) -> str:
    """The message without the texts that are secret in the inputs."""
    secrets = (text for text in secret_strings(inputs or {}) if len(text) >= _SHORTEST_REDACTED)
    for text in sorted(secrets, key=len, reverse=True):
        message = message.replace(text, "[secret]")
    return message


def _abort_initialised(
    context: Any, error: InitFailedError, reasons: list[str], inputs: Properties
) -> NoReturn:
    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.id,
        properties=to_struct(with_secrets_of(error.outputs, inputs)),
        inputs=to_struct(with_secrets_of(error.inputs, inputs) if error.inputs else inputs),
        reasons=reasons,
    )
    packed = any_pb2.Any()
    packed.Pack(detail)
    message = "; ".join(reasons)
    code = grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError("abort always raises")


def _autoname(request: Any) -> Autoname | None:
    if not request.HasField("autonaming"):
        return None
    mode = provider_pb2.CheckRequest.AutonamingOptions.Mode.Name(request.autonaming.mode)
    return Autoname(mode=mode, proposed=request.autonaming.proposed_name)


def _diff_response(diff: Diff) -> provider_pb2.DiffResponse:
    if not diff.changed:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
    detailed = {
        path_text(path): provider_pb2.PropertyDiff(
            kind=provider_pb2.PropertyDiff.Kind.Value(
                f"{change}_REPLACE" if path in diff.replaces else change
            ),
            inputDiff=True,
        )
        for path, change in diff.changed.items()
    }
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME,
        replaces=sorted(path_text(path) for path in diff.replaces),
        diffs=sorted({str(path[0]) for path in diff.changed if path}),
        deleteBeforeReplace=diff.delete_first,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )
