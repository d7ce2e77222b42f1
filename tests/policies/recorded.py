"""What the program of each environment declares, as the pack's rules see it, and changes to it."""

from __future__ import annotations

import json
import re
import runpy
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.package import preview_example
from tests.preview.program import as_referred_to, record_local, record_program
from tests.stacks import CLUSTER_OF, ROOT, STACKS, local_values, stack_values
from voicemesh.testing import CloudMocks, Recording, record
from voicemesh_policies import rules
from voicemesh_policies.aws import BUCKET
from voicemesh_policies.objects import Resource
from voicemesh_policies.rule import Rule, violations

RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in rules.ALL}
ABSENT: Final = object()
"""In place of a value: the key is taken away."""

_PLATFORM: Final = {
    "gateway": {
        "ref": "istio-ingress/public-gateway",
        "namespace": "istio-ingress",
        "principal": "cluster.local/ns/istio-ingress/sa/public-gateway",
    },
    "injectionLabels": {"istio-injection": "enabled"},
}
EXAMPLES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("team-voice", "prod"): {"acme/voicemesh/prod": _PLATFORM},
    ("team-voice", "local"): {"organization/voicemesh/local": _PLATFORM},
    ("regional-platform", "ireland"): {},
}


@cache
def environment(stack: str) -> tuple[Resource, ...]:
    """All resources of an environment."""
    return resources(_recording(stack))


@cache
def example(folder: str, stack: str) -> tuple[Resource, ...]:
    """All resources of a stack of an example."""
    path = ROOT / "examples" / folder
    recording = record(
        lambda: runpy.run_path(str(path)),
        project=folder,
        stack=stack,
        config=preview_example.configuration(path, stack),
        stacks=EXAMPLES[folder, stack],
        resource_mocks=CloudMocks({BUCKET: {"bucket": "made-up"}}),
    )
    return resources(recording)


@cache
def _recording(stack: str) -> Recording:
    assert stack in STACKS
    if stack == "local":
        with tempfile.TemporaryDirectory() as folder:
            kubeconfig = Path(folder) / "kubeconfig"
            kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
            return record_local(local_values(), kubeconfig)
    owner = CLUSTER_OF.get(stack)
    stacks = as_referred_to(owner, _recording(owner)) if owner else None
    return record_program(stack, stack_values(stack), stacks=stacks)


def resources(recording: Recording) -> tuple[Resource, ...]:
    """A recording as rules see it."""
    inputs = {it.urn: it.inputs for it in recording.registrations}
    return tuple(
        Resource(
            type=it.type,
            name=it.name,
            urn=it.urn,
            load=lambda it=it: it.inputs,
            protect=it.protect,
            load_provider=lambda it=it: inputs.get(it.provider.rpartition("::")[0]),
            dependencies=it.depends_on,
        )
        for it in recording.registrations
    )


@cache
def settings(stack: str, project: str = ".") -> Mapping[str, Any]:
    """What a project says of the rules for one of its stacks, by their names."""
    path = ROOT / project / "policies" / "config" / f"{stack}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def judged(
    chosen: Iterable[Rule], declared: Sequence[Resource], config: Mapping[str, Any]
) -> dict[str, list[str]]:
    """What the rules that are on say of resources, by their names; without those that are
    content."""
    said: dict[str, list[str]] = defaultdict(list)
    for rule in chosen:
        own = config.get(rule.name, {})
        if own == "disabled":
            continue
        own = own if isinstance(own, dict) else {}
        for part in [[it] for it in declared] if rule.on_resource else [declared]:
            said[rule.name] += [it.message for it in violations(rule, part, own)]
    return {name: messages for name, messages in said.items() if messages}


def one(declared: Sequence[Resource], which: str) -> Resource:
    """The resource of a kind and a name, written with a space between them."""
    kind, name = which.split(" ")
    (found,) = (it for it in declared if it.kind.rpartition(":")[2] == kind and it.name == name)
    return found


def changed(resource: Resource, path: str, to: Any) -> Resource:
    """A resource with another value at a path such as `spec.hard[requests.cpu]`; where a path ends
    in `[+]`, with one more entry."""
    if path == "options.protect":
        return replace(resource, protect=to)
    if path == "apiVersion":
        kind = resource.type.rpartition(":")[2]
        resource = replace(resource, type=f"kubernetes:{to}:{kind}")
    properties = deepcopy(resource.load())
    target: Any = properties
    *way, last = _keys(path)
    for key in way:
        target = target.setdefault(key, {}) if isinstance(target, dict) else target[key]
    if last == "+":
        target.append(to)
    elif to is ABSENT:
        del target[last]
    else:
        target[last] = to
    return replace(resource, load=lambda: properties)


def _keys(path: str) -> list[Any]:
    """Keys and indexes of a path; what is in brackets may have dots."""
    keys = [inside or plain for inside, plain in re.findall(r"\[([^\]]+)\]|([^.\[\]]+)", path)]
    return [int(key) if key.isdigit() else key for key in keys]
