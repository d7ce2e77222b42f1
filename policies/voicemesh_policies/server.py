"""The pack's side of Pulumi's protocol for policies.

Pulumi's own servicer reads the properties of a resource anew for every policy, and those of a whole
stack for every policy about stacks. With as many rules as here that is nearly all the time that it
takes; this one reads them once. Levels, settings and messages stay Pulumi's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime import proto
from pulumi_policy import EnforcementLevel, Policy, PolicyPack, policy

from voicemesh_policies.objects import Resource
from voicemesh_policies.pack import NAME, policies
from voicemesh_policies.rule import Rule, violations
from voicemesh_policies.rules import ALL
from voicemesh_policies.view import UNKNOWN

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (marks secrets, and is none)
_UNKNOWN_VALUES: Final = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""What the engine writes in place of values that it does not know, one for each type; and the two
keys above mark what is more than a plain value:
https://github.com/pulumi/pulumi/blob/master/sdk/go/common/resource/plugin/rpc.go"""

_RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in ALL}


def run() -> None:
    """Serves the pack to whoever started it; returns when that ends it."""
    policy._PolicyAnalyzerServicer = Servicer
    PolicyPack(NAME, policies(), enforcement_level=EnforcementLevel.MANDATORY)


class Servicer(policy._PolicyAnalyzerServicer):
    """Serves rules of this pack as Pulumi's servicer would serve their policies."""

    def __init__(
        self,
        name: str,
        version: str,
        policies: list[Policy],
        enforcement_level: EnforcementLevel,
        *others: Any,
    ) -> None:
        super().__init__(name, version, policies, enforcement_level, *others)
        self._pack = f"{name}@v{version}"
        self._policies = policies

    def Analyze(self, request: Any, _context: Any) -> Any:
        resource = _resource(request, frozenset())
        about_it = (
            it
            for it in self._on()
            if _RULES[it.name].on_resource and _RULES[it.name].applies_to(resource)
        )
        return self._judged(about_it, [resource])

    def AnalyzeStack(self, request: Any, _context: Any) -> Any:
        resources = [_resource(it, frozenset(it.dependencies)) for it in request.resources]
        return self._judged((it for it in self._on() if _RULES[it.name].on_stack), resources)

    def _on(self) -> list[Policy]:
        levels = ((it, self._get_enforcement_level(it)) for it in self._policies)
        return [it for it, level in levels if level != EnforcementLevel.DISABLED]

    def _judged(self, chosen: Iterable[Policy], resources: Sequence[Resource]) -> Any:
        response = proto.AnalyzeResponse()
        for its in chosen:
            level = self._get_enforcement_level(its)
            if level == EnforcementLevel.REMEDIATE:
                # Nothing here remedies: Pulumi takes what is still wrong then as mandatory.
                level = EnforcementLevel.MANDATORY
            config = self._get_policy_config(its.name) or {}
            for found in violations(_RULES[its.name], resources, config):
                report = self._create_report_violation(
                    response,
                    its.name,
                    its.description,
                    EnforcementLevel.ADVISORY if found.unjudged else level,
                    its.severity,
                )
                report(found.message, found.urn or None)
        return response


def _resource(request: Any, dependencies: frozenset[str]) -> Resource:
    return Resource(
        type=request.type,
        name=request.name,
        urn=request.urn,
        load=_loader(request.properties),
        protect=request.options.protect,
        load_provider=_loader(request.provider.properties),
        dependencies=dependencies,
    )


def _loader(properties: struct_pb2.Struct) -> Callable[[], Any]:
    return lambda: read(properties)


def read(struct: struct_pb2.Struct) -> Any:
    """Properties as they are on the wire, with `UNKNOWN` for what is not known."""
    fields = {key: _value(value) for key, value in struct.fields.items()}
    if (signature := fields.get(_SIGNATURE)) is None:
        return fields
    # An asset, or whatever else is no plain value, is nothing that a rule could judge.
    return fields.get("value") if signature == _SECRET else UNKNOWN


def _value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return read(value.struct_value)
    if kind == "list_value":
        return [_value(entry) for entry in value.list_value.values]
    if kind in (None, "null_value"):
        return None
    plain = getattr(value, kind)
    return UNKNOWN if kind == "string_value" and plain in _UNKNOWN_VALUES else plain
