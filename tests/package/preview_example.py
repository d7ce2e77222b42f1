"""Previews a program of `examples/` on mocks, with the library that is installed.

    python preview_example.py FOLDER STACK OUTPUTS_OF_OTHER_STACKS

Prints what it declares as JSON. Runs outside the checkout, so it imports nothing of it.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from voicemesh.testing import Recording, record


def configuration(folder: Path, stack: str) -> dict[str, Any]:
    """A stack's configuration as the engine composes it: the project's defaults, then its own."""
    project = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    defaults = {
        key: declared.get("default", declared.get("value"))
        for key, declared in project.get("config", {}).items()
        if "default" in declared or "value" in declared
    }
    own = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {
        key if ":" in key else f"{project['name']}:{key}": value
        for key, value in {**defaults, **own}.items()
    }


def recorded(folder: Path, stack: str, stacks: Mapping[str, Any]) -> Recording:
    """What the program declares."""
    return record(
        lambda: runpy.run_path(str(folder)),
        project=folder.name,
        stack=stack,
        config=configuration(folder, stack),
        stacks=stacks,
    )


def as_json(recording: Recording) -> dict[str, Any]:
    """A recording's resources by their URNs, and its exports."""
    return {
        "resources": {
            registration.urn.split("::", 2)[2]: {
                "inputs": registration.inputs,
                "protect": registration.protect,
                "provider": registration.provider.split("::")[-2:-1],
                "outputs": registration.outputs,
            }
            for registration in recording.registrations
        },
        "exports": dict(recording.exports),
    }


if __name__ == "__main__":
    found = recorded(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps(as_json(found)))
