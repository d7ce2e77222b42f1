"""For tests of programs that use components: run one without an engine, and see all it declared.

Pulumi's own mocks show the inputs of a resource, but not its options. This monitor keeps what the
program sent to the engine: parents, providers, aliases, protection, dependencies, and the outputs
that components register.

    recording = record(program)
    service = recording.one("kubernetes:core/v1:Service")
    assert service.parent == recording.one("voicemesh:index:TtsVoiceService").urn

No provider checks the inputs, and transforms and hooks do not run: that takes an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import mocks, rpc, settings
from pulumi.runtime.proto import resource_pb2

from voicemesh.urns import STACK_TYPE, child_urn

_SECRET_SIGNATURE = rpc._special_sig_key
_STACK_REFERENCE = "pulumi:pulumi:StackReference"


@dataclass(frozen=True)
class SecretValue:
    """A secret value of a configuration, or among the outputs of another stack."""

    value: Any = field(repr=False)


@dataclass(frozen=True)
class Registration:
    """One resource as the engine was asked for it."""

    urn: str
    type: str
    name: str
    custom: bool
    """Whether a provider makes it; False for components."""
    parent: str
    """URN of the parent; the stack's for what the program declares itself."""
    provider: str
    """Reference to an explicit provider, `urn::id`; empty where none was given."""
    inputs: Mapping[str, Any]
    """Inputs under their names on the wire, secrets revealed."""
    secret_paths: frozenset[str]
    """Where the inputs are secret, as in `data.tls.key`."""
    depends_on: frozenset[str]
    """URNs of all resources that it waits for."""
    protect: bool
    retain_on_delete: bool
    delete_before_replace: bool
    aliases: tuple[Any, ...]
    ignore_changes: tuple[str, ...]
    """Paths under their names on the wire, as are `replace_on_changes`."""
    replace_on_changes: tuple[str, ...]
    import_id: str
    """Id of the existing object that it takes over; empty for none."""
    custom_timeouts: Mapping[str, str]
    hooks: frozenset[str] = frozenset()
    """When it runs hooks, as in `after_create`."""
    outputs: Mapping[str, Any] | None = None
    """What a component registered; None where it registered nothing."""


@dataclass(frozen=True)
class Read:
    """One resource that the program does not own, but looks at: `Service.get`, `StackReference`."""

    urn: str
    type: str
    name: str
    id: str
    parent: str
    provider: str
    depends_on: frozenset[str]


@dataclass(frozen=True)
class Recording:
    """What a program declared."""

    registrations: tuple[Registration, ...]
    exports: Mapping[str, Any] = field(default_factory=dict)
    """The stack's outputs, secrets revealed."""
    secret_exports: frozenset[str] = frozenset()
    """Names of the outputs that are secret, or contain a secret."""
    reads: tuple[Read, ...] = ()
    """What was looked at, in order."""

    def of_type(self, type_: str) -> list[Registration]:
        """All resources of a type, in the order of their declaration."""
        return [r for r in self.registrations if r.type == type_]

    def one(self, type_: str, name: str | None = None) -> Registration:
        """The only resource of a type, or of a type and a name.

        Raises:
            LookupError: there is none, or more than one; says which there are.
        """
        alike = self.of_type(type_)
        found = [r for r in alike if name in (None, r.name)]
        if len(found) != 1:
            there = [r.name for r in alike] or sorted({r.type for r in self.registrations})
            raise LookupError(
                f"{len(found)} resources of type {type_} and name {name or 'any'}; "
                f"there are {', '.join(there) or 'none'}"
            )
        return found[0]

    def children(self, parent: Registration) -> list[Registration]:
        """What was declared directly under a resource."""
        return [r for r in self.registrations if r.parent == parent.urn]

    def components(self) -> list[Registration]:
        """Everything that is not a resource of a provider."""
        return [r for r in self.registrations if not r.custom]


class EchoMocks(mocks.Mocks):
    """Resources whose outputs are their inputs, and an id; extend it with what a provider adds.

    Args:
        outputs: further outputs by resource type, under their names on the wire.
        calls: results of invokes by token.
    """

    def __init__(
        self,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
        calls: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._outputs = outputs or {}
        self._calls = calls or {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        return f"{args.name}-id", {**args.inputs, **self._outputs.get(args.typ, {})}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, list[tuple[str, str]] | None]:
        return dict(self._calls.get(args.token, {})), None


class CloudMocks(EchoMocks):
    """`EchoMocks` with those outputs of AWS and of random names that components look into.

    Args:
        outputs: further outputs by resource type, under their names on the wire.
        calls: results of invokes by token.
    """

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        id_, outputs = super().new_resource(args)
        return id_, {**_outputs_of_provider(args), **outputs}


class RecordingMonitor(mocks.MockMonitor):
    """Pulumi's mock monitor, which also keeps each registration with its options.

    Args:
        resource_mocks: outputs of the resources.
        stacks: outputs of the stacks that may be referred to, by name.
    """

    def __init__(
        self, resource_mocks: mocks.Mocks, stacks: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(resource_mocks)
        self._stacks = stacks or {}
        self._registrations: dict[str, Registration] = {}
        self._reads: list[Read] = []
        self._exports: Mapping[str, Any] = {}

    @property
    def recording(self) -> Recording:
        """What has been declared so far."""
        return Recording(
            tuple(self._registrations.values()),
            _plain(self._exports),
            frozenset(name for name, value in self._exports.items() if _secret_paths(value)),
            tuple(self._reads),
        )

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        return child_urn(settings.get_stack(), settings.get_project(), parent, type_, name)

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type != STACK_TYPE:
            self._keep(_registration(response.urn, request))
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        outputs = MessageToDict(request.outputs)
        if request.urn.split("::")[2] == STACK_TYPE:
            self._exports = outputs
        else:
            known = self._registrations[request.urn]
            self._registrations[request.urn] = replace(known, outputs=_plain(outputs))
        return empty_pb2.Empty()

    def ReadResource(self, request: Any) -> Any:
        if request.type == _STACK_REFERENCE:
            response = self._referred(request)
        else:
            response = super().ReadResource(request)
        self._reads.append(
            Read(
                urn=response.urn,
                type=request.type,
                name=request.name,
                id=request.id,
                parent=request.parent,
                provider=request.provider,
                depends_on=frozenset(request.dependencies),
            )
        )
        return response

    def _referred(self, request: Any) -> resource_pb2.ReadResourceResponse:
        if request.id not in self._stacks:
            known = ", ".join(self._stacks) or "none"
            raise LookupError(f"no outputs are given for the stack {request.id!r}; given: {known}")
        outputs = self._stacks[request.id]
        properties = struct_pb2.Struct()
        properties.update(
            {
                "name": request.id,
                "outputs": {name: _revealed(value) for name, value in outputs.items()},
                "secretOutputNames": [n for n, value in outputs.items() if _has_secret(value)],
            }
        )
        urn = self.make_urn(request.parent, request.type, request.name)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=properties)

    def _keep(self, registration: Registration) -> None:
        if registration.urn in self._registrations:
            # The engine refuses the second one; Pulumi's mocks do not.
            raise ValueError(f"duplicate resource URN {registration.urn}")
        self._registrations[registration.urn] = registration


def record(
    program: Callable[[], object],
    *,
    project: str = "voicemesh",
    stack: str = "test",
    config: Mapping[str, Any] | None = None,
    stacks: Mapping[str, Mapping[str, Any]] | None = None,
    resource_mocks: mocks.Mocks | None = None,
    preview: bool = False,
) -> Recording:
    """Runs a program against the recording monitor and returns what it declared.

    Args:
        program: declares resources; what it raises, and what any of its outputs raises, is raised.
        config: the stack's configuration, by key; a key without a namespace is the project's.
            Strings are passed as they are, other values as JSON, as the engine does. A value in a
            `SecretValue` is a secret of the configuration.
        stacks: outputs of the stacks that the program refers to, by the names that it uses.
            A value that is, or contains, a `SecretValue` is a secret output.
        resource_mocks: outputs of the resources; by default `CloudMocks`.
        preview: whether the engine says that it only previews.
    """
    monitor = RecordingMonitor(resource_mocks or CloudMocks(), stacks)
    values = {key if ":" in key else f"{project}:{key}": v for key, v in (config or {}).items()}
    with _without_garbage_collection():
        # Pulumi keeps its state in context variables: a context of its own leaves none behind.
        contextvars.Context().run(_run, program, monitor, project, stack, values, preview)
    return monitor.recording


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """It would walk all outputs of a large program again and again, and find next to nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _outputs_of_provider(args: mocks.MockResourceArgs) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    package, _, type_ = args.typ.partition(":")
    if package == "aws":
        service = type_.partition("/")[0]
        outputs["arn"] = f"arn:aws:{service}:us-east-1:123456789012:{args.name}"
    if args.typ == "aws:eks/cluster:Cluster":
        outputs["endpoint"] = f"https://{args.name}.eks.example.com"
        outputs["certificateAuthority"] = {"data": "Y2VydGlmaWNhdGU="}
    if args.typ == "aws:ecr/repository:Repository":
        outputs["repositoryUrl"] = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{args.name}"
    if args.typ == "random:index/randomId:RandomId":
        outputs["hex"] = "00112233"
    return outputs


def _run(
    program: Callable[[], object],
    monitor: RecordingMonitor,
    project: str,
    stack: str,
    config: Mapping[str, Any],
    preview: bool,
) -> None:
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            project=project,
            stack=stack,
            dry_run=preview,
            monitor=monitor,
            engine=mocks.MockEngine(logging.getLogger(__name__)),
        )
    )
    pulumi.runtime.set_all_config(
        {key: _as_config(_revealed(value)) for key, value in config.items()},
        [key for key, value in config.items() if _has_secret(value)],
    )
    with asyncio.Runner() as runner:
        runner.run(_run_in_stack(program))


def _as_config(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretValue):
        return _revealed(value.value)
    if isinstance(value, Mapping):
        return {key: _revealed(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_revealed(entry) for entry in value]
    return value


def _has_secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_secret, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_secret, value))
    return isinstance(value, SecretValue)


async def _run_in_stack(program: Callable[[], object]) -> None:
    """Runs the program with one thread for all calls of the monitor: declarations keep their order,
    and there is one event loop to close of those that Pulumi's mocks make in each thread."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    # What failed is raised below; the outputs that hang on it would each be reported again.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        await pulumi.runtime.run_in_stack(lambda: _call(program))
    finally:
        await loop.run_in_executor(None, _close_loop_of_thread)


def _call(program: Callable[[], object]) -> None:
    program()


def _close_loop_of_thread() -> None:
    with contextlib.suppress(RuntimeError):
        asyncio.get_event_loop().close()


def _registration(urn: str, request: resource_pb2.RegisterResourceRequest) -> Registration:
    wire = MessageToDict(request.object)
    timeouts = request.customTimeouts
    return Registration(
        urn=urn,
        type=request.type,
        name=request.name,
        custom=request.custom,
        parent=request.parent,
        provider=request.provider,
        inputs=_plain(wire),
        secret_paths=frozenset(_secret_paths(wire)),
        depends_on=frozenset(request.dependencies),
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace,
        aliases=tuple(MessageToDict(alias) for alias in request.aliases),
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        import_id=request.importId,
        custom_timeouts={
            name: getattr(timeouts, name)
            for name in ("create", "update", "delete")
            if getattr(timeouts, name)
        },
        hooks=frozenset(binding.name for binding, _ in request.hooks.ListFields()),
    )


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_SECRET_SIGNATURE) == rpc._special_secret_sig


def _plain(value: Any) -> Any:
    if _is_secret(value):
        return _plain(value["value"])
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    # Protobuf's Struct has no integers.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _secret_paths(value: Any, path: str = "") -> list[str]:
    if _is_secret(value):
        return [path]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _secret_paths(v, f"{path}.{k}".lstrip("."))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in _secret_paths(v, f"{path}[{i}]")]
    return []
