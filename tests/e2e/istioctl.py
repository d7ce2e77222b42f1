"""istioctl, compiled the first time that a test asks for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from infra.local import toolbox
from infra.local.paths import STATE
from tests.e2e.rendered import Object


@dataclass(frozen=True)
class Finding:
    """What `istioctl analyze` says about an object.

    Attributes:
        code: as in IST0101.
        origin: kind, namespace and name.
    """

    code: str
    origin: str
    message: str

    @property
    def namespace(self) -> str:
        """Namespace of the object, or the object's own name where it has none."""
        return self.origin.split(" ", 1)[-1].split("/")[0]


def analyze_objects(objects: Sequence[Object], folder: Path) -> list[Finding]:
    """What it says of objects as if they were all that a cluster has."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    return _analyze("--use-kube=false", str(file))


def analyze_cluster() -> list[Finding]:
    """What it says of all that the environment's cluster has."""
    return _analyze("--kubeconfig", str(STATE / "kubeconfig-host"))


def _analyze(*arguments: str) -> list[Finding]:
    command = [str(toolbox.binary("istioctl")), "analyze", "--all-namespaces", "--output", "json"]
    done = subprocess.run(
        [*command, *arguments], text=True, capture_output=True, check=False, timeout=120
    )
    # It exits with 79 where it found errors, and tells of a file without findings in words.
    assert done.returncode in (0, 79), done.stderr
    told = json.loads(done.stdout or "[]")
    return [Finding(each["code"], each["origin"], each["message"]) for each in told]
