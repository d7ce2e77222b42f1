"""Pulumi projects of a few lines, for tests of the policy gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from voicemesh.policy.charts import Charts
from voicemesh.policy.gate import Gate, Verdict, check
from voicemesh.policy.project import Project

PACKS = Path(__file__).with_name("packs")
TINY = PACKS / "tiny"
TELLTALE = PACKS / "telltale"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
NAMESPACE = "kubernetes:core/v1:Namespace"
BUCKET = "aws:s3/bucket:Bucket"
_HEAD = """\
import pulumi

config = pulumi.Config()


def made(type_, name, props=None, opts=None):
    return pulumi.CustomResource(type_, name, props or {}, opts)


def options(**given):
    return pulumi.ResourceOptions(**given)


"""


class SmallProject:
    """A project `small` in a folder of its own, with the stack `test` and what else it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("Pulumi.yaml", {"name": "small", "runtime": "python"})
        self.stack("test")

    def program(self, text: str) -> SmallProject:
        """Sets the program, after its usual head."""
        (self.folder / "__main__.py").write_text(_HEAD + dedent(text))
        return self

    def stack(self, name: str, config: Mapping[str, Any] | None = None) -> SmallProject:
        """Sets the configuration of a stack."""
        return self.write(f"Pulumi.{name}.yaml", {"config": dict(config or {})})

    def stand_ins(self, **sections: Any) -> SmallProject:
        return self.write("policies/gate.yaml", sections)

    def settings(self, settings: Mapping[str, Any], stack: str = "test") -> SmallProject:
        return self.write(f"policies/config/{stack}.json", settings)

    def write(self, name: str, content: Mapping[str, Any]) -> SmallProject:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write = json.dumps if file.suffix == ".json" else yaml.safe_dump
        file.write_text(write(dict(content)))
        return self

    def check(self, pack: Path = TINY, stack: str = "test", **charts: Any) -> Verdict:
        project = Project.at(self.folder)
        charts.setdefault("working_directory", project.working_directory)
        return check(project, stack, Gate(pack, Charts(**charts)))

    def said(self, pack: Path = TINY, stack: str = "test") -> set[str]:
        """What the pack says, as `policy name: message`."""
        violations = self.check(pack, stack).violations
        return {f"{v.policy} {v.urn.rpartition('::')[2]}: {v.message}" for v in violations}

    def told(self, name: str, stack: str = "test") -> Any:
        """What a pack is told of the resource of a name."""
        violations = self.check(TELLTALE, stack).violations
        (said,) = (
            v.message
            for v in violations
            if v.policy == "tell-resource" and v.urn.endswith(f"::{name}")
        )
        return json.loads(said)
