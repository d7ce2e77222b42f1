"""The engine's side of a Pulumi program, which only takes notes.

A program cannot tell it from the engine of a preview in which nothing exists yet: a resource gets
its URN, its inputs as outputs, and everything else that a provider would add is unknown.

What takes a provider, and so stops a program: functions that have no answer, methods, and reading
a resource whose id is not known. Transforms are not offered: the SDK refuses them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import (
    analyzer_pb2,
    engine_pb2,
    engine_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from voicemesh.policy.resources import (
    PROVIDER_TYPE,
    as_provider,
    declared,
    plugin,
    secret_names,
    struct,
)
from voicemesh.urns import STACK_TYPE, child_urn

ORGANIZATION: Final = "organization"
"""The organization that a backend without organizations tells programs."""

_STACK_REFERENCE: Final = "pulumi:pulumi:StackReference"
_THREADS: Final = 16
# Without resource references and output values: the SDK then sends what the engine passes to packs.
_FEATURES: Final = (
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACEMENT_TRIGGER,
    resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_PARAMETERIZATION,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
)


@dataclass(frozen=True)
class Surroundings:
    """What a program asks of the world around it."""

    project: str
    stack: str
    configuration: Mapping[str, str]
    """The stack's configuration, by namespaced key."""
    outputs_of: Callable[[str], struct_pb2.Struct | None]
    """Outputs of another stack by its name; None if they are not known."""
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results of provider functions (invokes) by token."""

    def refuses_default_provider(self, package: str) -> bool:
        """Whether the configuration forbids a package's default provider."""
        barred = json.loads(self.configuration.get("pulumi:disable-default-providers") or "[]")
        return package != "pulumi" and bool({"*", package} & set(barred))


class Notes:
    """What a program has declared so far."""

    def __init__(self, declare: Callable[[analyzer_pb2.AnalyzerResource], None]) -> None:
        self._declare = declare
        self._resources: dict[str, analyzer_pb2.AnalyzerResource] = {}
        self._lock = threading.Lock()
        self.component_outputs: dict[str, struct_pb2.Struct] = {}
        self.stack_outputs = struct_pb2.Struct()
        self.remote_components: list[str] = []
        """URNs of components that a provider makes, children included."""
        self.unknown_stacks: list[str] = []
        """Names of stacks that the program refers to, and whose outputs are not known."""

    @property
    def resources(self) -> list[analyzer_pb2.AnalyzerResource]:
        """Everything declared, in its order."""
        return list(self._resources.values())

    def add(self, resource: analyzer_pb2.AnalyzerResource, provider: str = "") -> bool:
        """Notes a resource with its provider; False if there is one of its URN already."""
        with self._lock:
            if resource.urn in self._resources:
                return False
            if provider in self._resources:
                resource.provider.CopyFrom(as_provider(self._resources[provider]))
            self._resources[resource.urn] = resource
            self._declare(resource)
            return True


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """What a program asks of the engine about resources."""

    def __init__(self, surroundings: Surroundings, notes: Notes) -> None:
        self._surroundings = surroundings
        self._notes = notes
        self._packages: dict[str, resource_pb2.RegisterPackageRequest] = {}

    def GetDeploymentInfo(self, request, context):
        del request, context
        return resource_pb2.DeploymentInfo(
            project=self._surroundings.project,
            stack=self._surroundings.stack,
            organization=ORGANIZATION,
            dryRun=True,
            supportedFeatures=_FEATURES,
        )

    def RegisterResource(self, request, context):
        urn = self._urn(request)
        is_made = request.custom and not request.type.startswith(PROVIDER_TYPE)
        provider = self._provider_of(request, context) if is_made else ""
        if not self._notes.add(declared(request, urn), provider):
            _refuse(context, f"Duplicate resource URN {urn!r}; try giving it a unique name")
        if request.remote:
            self._notes.remote_components.append(urn)
            return resource_pb2.RegisterResourceResponse(urn=urn)
        return resource_pb2.RegisterResourceResponse(
            urn=urn, id=request.importId, object=request.object
        )

    def RegisterResourceOutputs(self, request, context):
        del context
        if request.urn.split("::")[2] == STACK_TYPE:
            self._notes.stack_outputs = request.outputs
        self._notes.component_outputs[request.urn] = request.outputs
        return empty_pb2.Empty()

    def ReadResource(self, request, context):
        urn = self._urn(request)
        self._provider_of(request, context)
        if request.type != _STACK_REFERENCE:
            return resource_pb2.ReadResourceResponse(
                urn=urn, id=request.id, properties=request.properties
            )
        outputs = self._surroundings.outputs_of(request.id)
        properties = struct({"name": request.id})
        if outputs is None:
            self._notes.unknown_stacks.append(request.id)
        else:
            properties.update({"outputs": outputs, "secretOutputNames": secret_names(outputs)})
        return resource_pb2.ReadResourceResponse(urn=urn, id=request.id, properties=properties)

    def Invoke(self, request, context):
        answer = self._surroundings.answers.get(request.tok)
        if answer is None:
            _refuse(
                context,
                f"the program calls the function {request.tok}, which takes a provider; answer it "
                f"in policies/gate.yaml: `invokes: {{{request.tok}: {{…}}}}`",
            )
        response = resource_pb2.ResourceInvokeResponse()
        getattr(response, "return").update(answer)
        return response

    def Call(self, request, context):
        _refuse(context, f"the program calls the method {request.tok}, which takes a provider")

    def RegisterResourceHook(self, request, context):
        # A preview runs no hooks but those that ask for it, and they could only refuse.
        del request, context
        return empty_pb2.Empty()

    def RegisterErrorHook(self, request, context):
        del request, context
        return empty_pb2.Empty()

    def RegisterPackage(self, request, context):
        del context
        reference = f"{request.name}@{request.version}"
        self._packages[reference] = request
        return resource_pb2.RegisterPackageResponse(ref=reference)

    def SignalAndWaitForShutdown(self, request, context):
        del request, context
        return empty_pb2.Empty()

    def _urn(self, request: Any) -> str:
        where = self._surroundings
        return child_urn(where.stack, where.project, request.parent, request.type, request.name)

    def _provider_of(self, request: Any, context: grpc.ServicerContext) -> str:
        """The URN of a resource's provider; a default provider is declared when first needed."""
        if request.provider:
            return request.provider.rpartition("::")[0]
        package, _, _ = request.type.partition(":")
        if self._surroundings.refuses_default_provider(package):
            _refuse(
                context,
                f"Default provider for '{package}' disabled. '{self._urn(request)}' must use an "
                "explicit provider.",
            )
        registered = self._packages.get(request.packageRef)
        version = registered.version if registered else request.version
        provider = self._default_provider(package, version, request.pluginDownloadURL)
        self._notes.add(provider)
        return provider.urn

    def _default_provider(
        self, package: str, version: str, download_url: str
    ) -> analyzer_pb2.AnalyzerResource:
        where, prefix = self._surroundings, f"{package}:"
        configured = {
            key.removeprefix(prefix): value
            for key, value in where.configuration.items()
            if key.startswith(prefix) and package != "pulumi"
        }
        type_ = f"{PROVIDER_TYPE}{package}"
        name = "_".join(["default", *re.split(r"[.+]", version)]).rstrip("_")
        return analyzer_pb2.AnalyzerResource(
            urn=child_urn(where.stack, where.project, "", type_, name),
            type=type_,
            name=name,
            properties=struct(configured | plugin(version, download_url)),
            options=analyzer_pb2.AnalyzerResourceOptions(
                customTimeouts=analyzer_pb2.AnalyzerResourceOptions.CustomTimeouts()
            ),
        )


class Engine(engine_pb2_grpc.EngineServicer):
    """What a program, or a policy pack, tells the engine itself."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        """What it reported as an error."""

    def Log(self, request, context):
        del context
        if request.severity == engine_pb2.ERROR:
            self.errors.append(request.message)
        return empty_pb2.Empty()

    def RequirePulumiVersion(self, request, context):
        # There is no CLI whose version could be too old.
        del request, context
        return engine_pb2.RequirePulumiVersionResponse()

    def SetRootResource(self, request, context):
        del request, context
        return engine_pb2.SetRootResourceResponse()


@contextmanager
def serving(engine: Engine, monitor: Monitor | None = None):
    """The services at an address of this machine, for as long as the context lasts."""
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_GRPC_CHANNEL_OPTIONS)
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    if monitor is not None:
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def _refuse(context: grpc.ServicerContext, reason: str) -> NoReturn:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
    raise AssertionError("abort raises")
