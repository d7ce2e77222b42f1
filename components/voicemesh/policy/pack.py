"""A policy pack in a process of its own, spoken to as Pulumi's engine does."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import grpc
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict
from jsonschema import Draft7Validator
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from voicemesh.policy.errors import ConfigurationError, PackError
from voicemesh.policy.monitor import ORGANIZATION, Engine, serving
from voicemesh.policy.project import StackConfiguration, interpreter_of, mapping_of, runtime_of
from voicemesh.policy.resources import struct

_PROJECT_FILE: Final = "PulumiPolicy.yaml"
_ALL: Final = "all"
_LEVEL_KEY: Final = "enforcementLevel"
_SECONDS_TO_STOP: Final = 5


class Level(StrEnum):
    """What a violation of a policy does."""

    ADVISORY = "advisory"
    MANDATORY = "mandatory"
    REMEDIATE = "remediate"
    DISABLED = "disabled"


class Severity(StrEnum):
    """How bad a violation of a policy is."""

    UNSPECIFIED = "unspecified"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Violation:
    """What a policy has against a resource, or against the stack."""

    policy: str
    level: Level
    severity: Severity
    urn: str
    """Of the resource; of the stack for what concerns no single resource."""
    message: str
    description: str
    """What the policy is about."""
    fix: str
    """How to satisfy it; empty where the pack does not say."""
    url: str
    """Where to read more; empty where the pack does not say."""


@dataclass(frozen=True)
class PolicySettings:
    """The configuration of one policy."""

    level: Level | None = None
    """None leaves the level as it is."""
    properties: Mapping[str, Any] | None = None


Settings = Mapping[str, PolicySettings]


def read_settings(file: Path) -> Settings:
    """The configuration of a pack, in the format of `pulumi preview --policy-pack-config`.

    Raises:
        ConfigurationError: it is no JSON, or says something else than levels and properties.
    """
    try:
        content = json.loads(file.read_text() or "{}")
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{file} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} has no keys, but is {content!r}")
    return settings_from(content, str(file))


def settings_from(content: Mapping[str, Any], source: str) -> Settings:
    """The configuration of a pack, as the content of its file.

    Args:
        source: where it is from, for errors.

    Raises:
        ConfigurationError: it says something else than levels and properties.
    """
    return {name: _settings(value, f"{source}: {name}") for name, value in content.items()}


def reconciled(info: analyzer_pb2.AnalyzerInfo, given: Settings) -> Settings:
    """The configuration of every policy: defaults, then the pack's own, then the given one; in
    each, what holds for `all` comes before what names a policy, as the engine has it.

    Raises:
        ConfigurationError: it names a policy that is not there, or a policy's schema refuses it.
    """
    policies = {policy.name: policy for policy in info.policies}
    unknown = sorted(set(given) - set(policies) - {_ALL})
    if unknown:
        raise ConfigurationError(
            f"the pack {info.name} has no policy {', '.join(unknown)}; it has "
            f"{', '.join(sorted(policies))}"
        )
    settings = {name: _defaults(policy) for name, policy in policies.items()}
    initial = {
        name: PolicySettings(_level(config.enforcementLevel), MessageToDict(config.properties))
        for name, config in info.initialConfig.items()
    }
    for source in (initial, given):
        for name, current in settings.items():
            specific = source.get(name, PolicySettings())
            level = specific.level or source.get(_ALL, PolicySettings()).level or current.level
            properties = {**(current.properties or {}), **(specific.properties or {})}
            settings[name] = PolicySettings(level, properties)
    faults = [fault for name in policies for fault in _faults(policies[name], settings[name])]
    if faults:
        raise ConfigurationError(
            f"the configuration of the pack {info.name} is faulty:\n" + "\n".join(faults)
        )
    return settings


class Pack:
    """A policy pack that has been started."""

    def __init__(self, stub: analyzer_pb2_grpc.AnalyzerStub, version: str) -> None:
        self._stub = stub
        self.version = version
        self._levels: dict[str, Level | None] = {}

    @cached_property
    def info(self) -> analyzer_pb2.AnalyzerInfo:
        """The pack's name and policies."""
        return self._stub.GetAnalyzerInfo(empty_pb2.Empty())

    @cached_property
    def _policies(self) -> Mapping[str, analyzer_pb2.PolicyInfo]:
        return {policy.name: policy for policy in self.info.policies}

    @property
    def enforced(self) -> list[analyzer_pb2.PolicyInfo]:
        """The policies that are not disabled."""
        return [p for p in self.info.policies if self._levels[p.name] is not Level.DISABLED]

    def configure(
        self, stack: str, project: str, configuration: StackConfiguration, given: Settings
    ) -> None:
        """Tells the pack which stack it is to judge, and how strictly.

        Raises:
            ConfigurationError: the pack refuses the given configuration.
        """
        settings = reconciled(self.info, given)
        self._levels = {name: policy.level for name, policy in settings.items()}
        self._stub.ConfigureStack(
            analyzer_pb2.AnalyzerStackConfigureRequest(
                stack=stack,
                project=project,
                organization=ORGANIZATION,
                dry_run=True,
                config=dict(configuration.values),
                config_secret_keys=sorted(configuration.secret_keys),
            )
        )
        self._stub.Configure(
            analyzer_pb2.ConfigureAnalyzerRequest(
                policyConfig={
                    name: analyzer_pb2.PolicyConfig(
                        enforcementLevel=_number(policy.level or Level.ADVISORY),
                        properties=struct(policy.properties or {}),
                    )
                    for name, policy in settings.items()
                }
            )
        )

    def analyze(self, resource: analyzer_pb2.AnalyzerResource) -> list[Violation]:
        """What the pack has against a resource.

        Raises:
            PackError: a policy failed.
        """
        request = analyzer_pb2.AnalyzeRequest(
            urn=resource.urn,
            type=resource.type,
            name=resource.name,
            properties=resource.properties,
            options=resource.options,
            provider=resource.provider if resource.HasField("provider") else None,
        )
        try:
            response = self._stub.Analyze(request)
        except grpc.RpcError as error:
            raise _failed(error, resource.urn) from None
        return [self._violation(found, resource.urn) for found in response.diagnostics]

    def analyze_stack(
        self, resources: Iterable[analyzer_pb2.AnalyzerResource], stack_urn: str
    ) -> list[Violation]:
        """What the pack has against the resources as a whole.

        Raises:
            PackError: a policy failed.
        """
        request = analyzer_pb2.AnalyzeStackRequest(resources=resources)
        try:
            response = self._stub.AnalyzeStack(request)
        except grpc.RpcError as error:
            raise _failed(error, stack_urn) from None
        violations = (self._violation(found, stack_urn) for found in response.diagnostics)
        return [
            replace(found, level=Level.MANDATORY) if found.level is Level.REMEDIATE else found
            for found in violations
        ]

    def _violation(self, found: analyzer_pb2.AnalyzeDiagnostic, urn: str) -> Violation:
        policy = self._policies.get(found.policyName, analyzer_pb2.PolicyInfo())
        # The SDK of packs puts the description before the message; packs, the fix behind it, since
        # the engine does not show it.
        message = found.message.removeprefix(found.description).strip()
        message = message.removesuffix(f"Fix: {policy.remediation_steps}").strip()
        return Violation(
            policy=found.policyName,
            level=_level(found.enforcementLevel),
            severity=list(Severity)[found.severity or policy.severity],
            urn=found.urn or urn,
            message=message or found.description,
            description=found.description,
            fix=policy.remediation_steps,
            url=policy.url,
        )


@contextmanager
def started(folder: Path, working_directory: Path) -> Iterator[Pack]:
    """The pack of a folder, for as long as the context lasts.

    Raises:
        ConfigurationError: the folder holds no pack in Python.
        PackError: it does not start; carries what it printed.
    """
    file = folder / _PROJECT_FILE
    if not file.is_file():
        raise ConfigurationError(f"{folder} is no policy pack: it has no {_PROJECT_FILE}")
    content = mapping_of(file)
    runtime, options = runtime_of(content)
    if runtime != "python":
        raise ConfigurationError(
            f"{file}: runtime: {runtime!r}; the gate runs packs in Python only"
        )
    python = interpreter_of(options, folder)
    with serving(Engine()) as engine, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(python), "-u", "-m", "pulumi.policy", engine, str(folder)],
            cwd=working_directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        try:
            address = f"127.0.0.1:{_port(process, folder, said)}"
            with grpc.insecure_channel(address, _GRPC_CHANNEL_OPTIONS) as channel:
                stub = analyzer_pb2_grpc.AnalyzerStub(channel)
                yield Pack(stub, str(content.get("version") or ""))
        finally:
            _stop(process)


def _port(process: subprocess.Popen[bytes], folder: Path, said: IO[bytes]) -> int:
    """The port that the pack listens on, which is the first line that it prints."""
    stdout = process.stdout
    if stdout is None:
        raise ValueError("the output of the process is not captured")
    line = stdout.readline()
    if line.strip().isdigit():
        return int(line)
    process.kill()
    printed = line + stdout.read()
    said.seek(0)
    text = (printed + said.read()).decode(errors="replace").strip()
    raise PackError(f"the policy pack {folder} did not start; it said:\n{text or 'nothing'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()


def _failed(error: Any, urn: str) -> PackError:
    return PackError(f"a policy failed on {urn}: {error.details()}")


def _number(level: Level) -> analyzer_pb2.EnforcementLevel.ValueType:
    return analyzer_pb2.EnforcementLevel.Value(level.name)


def _level(number: analyzer_pb2.EnforcementLevel.ValueType) -> Level:
    return Level(analyzer_pb2.EnforcementLevel.Name(number).lower())


def _settings(value: Any, where: str) -> PolicySettings:
    properties = {_LEVEL_KEY: value} if isinstance(value, str) else value
    if not isinstance(properties, dict):
        raise ConfigurationError(f"{where}: {value!r}; allowed: a level, or an object")
    level = properties.get(_LEVEL_KEY)
    if level is not None and level not in set(Level):
        raise ConfigurationError(f"{where}: {level!r}; allowed: {', '.join(Level)}")
    rest = {key: entry for key, entry in properties.items() if key != _LEVEL_KEY}
    return PolicySettings(None if level is None else Level(level), rest)


def _defaults(policy: analyzer_pb2.PolicyInfo) -> PolicySettings:
    properties = MessageToDict(policy.configSchema.properties)
    given = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    return PolicySettings(_level(policy.enforcementLevel), given)


def _faults(policy: analyzer_pb2.PolicyInfo, settings: PolicySettings) -> Iterator[str]:
    schema = {
        "type": "object",
        "properties": MessageToDict(policy.configSchema.properties),
        "required": list(policy.configSchema.required),
    }
    for error in Draft7Validator(schema).iter_errors(dict(settings.properties or {})):
        where = ".".join(map(str, [policy.name, *error.absolute_path]))
        yield f"{where}: {error.message}"
