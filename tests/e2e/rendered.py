"""What an environment's program declares, as the objects that a cluster would have of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from infra.local import toolbox
from tests.preview.program import as_referred_to, record_local, record_program
from tests.stacks import CLUSTER_OF, STACKS, local_values, stack_values
from voicemesh.testing import Recording, Registration

Object = dict[str, Any]

_RELEASE: Final = "kubernetes:helm.sh/v3:Release"
_ISTIO_CHARTS: Final = {
    "base": "base",
    "cni": "istio-cni",
    "istiod": "istiod",
    "gateway": "gateway",
}


def recorded(folder: Path) -> dict[str, Recording]:
    """Everything that each environment declares, by its name. `folder` is an empty one."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    recordings = {"local": record_local(local_values(), kubeconfig)}
    for stack in STACKS:
        if stack not in recordings:
            owner = CLUSTER_OF.get(stack)
            stacks = as_referred_to(owner, recordings[owner]) if owner else None
            recordings[stack] = record_program(stack, stack_values(stack), stacks=stacks)
    return recordings


def declared(recording: Recording) -> list[Object]:
    """The objects that the program itself declares."""
    return [
        {"metadata": {}, **json.loads(json.dumps(resource.inputs))}
        for resource in recording.registrations
        if resource.custom and resource.type.startswith("kubernetes:") and resource.type != _RELEASE
    ]


def all_objects(recording: Recording) -> list[Object]:
    """What the program declares, what Istio's charts make of it, and the pods of all of that."""
    objects = declared(recording)
    for release in recording.of_type(_RELEASE):
        objects += _rendered(release)
    return [*objects, *_pods(objects)]


def _rendered(release: Registration) -> list[Object]:
    inputs = release.inputs
    folder = _ISTIO_CHARTS.get(Path(inputs["chart"]).name.removeprefix("istio-"))
    if folder is None:
        return []
    done = subprocess.run(
        [
            *(str(toolbox.binary("helm")), "template", inputs["name"]),
            *(str(toolbox.istio_charts() / folder), "--namespace", inputs["namespace"]),
            *("--include-crds", "--values", "-"),
        ],
        input=json.dumps(inputs["values"]),
        text=True,
        capture_output=True,
        check=True,
    )
    return [made for made in yaml.safe_load_all(done.stdout) if made]


def _pods(objects: list[Object]) -> Iterator[Object]:
    """One pod of each Deployment, as its controller would make it, with a proxy where Istio adds
    one."""
    for owner in objects:
        if owner["kind"] == "Deployment":
            template = owner["spec"]["template"]
            metadata: Mapping[str, Any] = template["metadata"]
            namespace = owner["metadata"]["namespace"]
            named = {"name": owner["metadata"]["name"], "namespace": namespace}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**metadata, **named},
                "spec": template["spec"],
            }
