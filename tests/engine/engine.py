"""A Pulumi project of a test, run by the real engine with the adapters."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from infra.local import toolbox
from infra.local.paths import CHECKOUT

ADAPTERS = CHECKOUT / "infra" / "local" / "adapters" / "bin"
PASSPHRASE = "a passphrase of the tests"
_LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """How a command of the CLI ended, and all it printed."""

    code: int
    text: str

    @property
    def counts(self) -> dict[str, int]:
        """The summary of the engine: resources by what was done with them."""
        summary = self.text.rpartition("Resources:")[2]
        found = re.findall(r"(\d+) (\w+)$", summary, re.MULTILINE)
        return {what: int(number) for number, what in found if what != "changes"}

    @property
    def done(self) -> set[str]:
        """What was done with single resources, as in `~ aws:s3:Bucket voices updated`."""
        found = re.findall(
            r"^ *(\S+)  (\S+) (\S+) (created|updated|replaced|deleted|imported)\b",
            self.text,
            re.MULTILINE,
        )
        return {" ".join(parts) for parts in found}


class Stack:
    """A project in a folder of its own, with one stack in a file backend."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        virtualenv = CHECKOUT / ".venv"
        (folder / "Pulumi.yaml").write_text(
            f"name: adapters\nruntime: {{name: python, options: {{virtualenv: '{virtualenv}'}}}}\n"
        )
        self.environment = {
            "PATH": f"{ADAPTERS}:{toolbox.binary('pulumi').parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "1",
            "HELM_BINARY": str(toolbox.binary("helm")),
            "KUBECONFIG": str(kubeconfig),
        }
        self.cli("stack", "init", "test")

    def program(self, text: str) -> None:
        """Sets the program; the SDK's usual names are imported for it."""
        head = "import json\nimport pulumi\nimport pulumi_kubernetes as k8s\n"
        (self.folder / "__main__.py").write_text(head + dedent(text))

    def cli(self, *arguments: str, fails: bool = False) -> Outcome:
        """Runs the CLI and asserts how it ends."""
        result = subprocess.run(
            [str(toolbox.binary("pulumi")), *arguments, "--non-interactive", "--color=never"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
        outcome = Outcome(result.returncode, result.stdout + result.stderr)
        assert (outcome.code != 0) is fails, outcome.text
        return outcome

    def up(self, program: str | None = None, *flags: str, fails: bool = False) -> Outcome:
        if program is not None:
            self.program(program)
        return self.cli("up", "--yes", "--skip-preview", *flags, fails=fails)

    def preview(self, program: str | None = None, *flags: str, fails: bool = False) -> Outcome:
        if program is not None:
            self.program(program)
        return self.cli("preview", "--diff", *flags, fails=fails)

    def unchanged(self, program: str | None = None) -> Outcome:
        """Asserts that a preview plans no change."""
        if program is not None:
            self.program(program)
        return self.cli("preview", "--expect-no-changes", "--diff")

    def refresh(self, *flags: str, fails: bool = False) -> Outcome:
        return self.cli("refresh", "--yes", "--diff", *flags, fails=fails)

    def destroy(self) -> Outcome:
        return self.cli("destroy", "--yes", "--skip-preview")

    def export(self, *, secrets: bool = False) -> str:
        """The stack's state as text."""
        flags = ["--show-secrets"] if secrets else []
        path = self.folder / "export.json"
        self.cli("stack", "export", "--file", str(path), *flags)
        return path.read_text()

    def resource(self, name: str) -> dict[str, Any]:
        """A resource in the state, by its name in the program."""
        resources = json.loads(self.export())["deployment"].get("resources", [])
        found = [item for item in resources if item["urn"].endswith(f"::{name}")]
        assert len(found) == 1, [item["urn"] for item in resources]
        return found[0]

    def names(self) -> list[str]:
        """The names of all resources in the state but the stack and the providers."""
        resources = json.loads(self.export())["deployment"].get("resources", [])
        return sorted(
            item["urn"].rpartition("::")[2]
            for item in resources
            if not item["type"].startswith("pulumi:")
        )

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.cli("stack", "output", "--json").text)
