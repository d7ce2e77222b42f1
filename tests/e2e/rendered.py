"""What the programs of the environments declare, as objects of Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.preview.program import as_referred_to, record_local, record_program
from tests.stacks import CLUSTER_OF, STACKS, local_values, stack_values
from voicemesh.testing import Recording

Object = dict[str, Any]

_RELEASE: Final = "kubernetes:helm.sh/v3:Release"


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
    """The objects that a program declares; those in Helm charts are their authors'."""
    return [
        {"metadata": {}, **json.loads(json.dumps(resource.inputs))}
        for resource in recording.registrations
        if resource.custom and resource.type.startswith("kubernetes:") and resource.type != _RELEASE
    ]
