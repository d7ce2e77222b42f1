"""A small stack of its own, whose program is one of `programs/`, on the environment's cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local import stack
from infra.local.paths import CHECKOUT, STATE

PROGRAMS = Path(__file__).parent / "programs"


class SmallStack:
    """A project in a folder of its own with one stack, kept by the environment's backend.

    Args:
        folder: an empty folder.
        program: name of the file in `programs/`. Its configuration has `kubeconfig`, a path.
        virtualenv: what runs it; by default the checkout's.
    """

    def __init__(self, folder: Path, program: str, virtualenv: Path | None = None) -> None:
        self._folder = folder
        self._name = f"small-{Path(program).stem.replace('_', '-')}"
        self._program = PROGRAMS / program
        self._virtualenv = virtualenv or CHECKOUT / ".venv"

    def init(self) -> None:
        """Makes project and stack."""
        python = {"name": "python", "options": {"virtualenv": str(self._virtualenv)}}
        project = {"name": self._name, "runtime": python}
        (self._folder / "Pulumi.yaml").write_text(json.dumps(project))
        (self._folder / "__main__.py").write_text(self._program.read_text())
        self._run("stack", "init", self._name)
        self._run("config", "set", "kubeconfig", str(STATE / "kubeconfig"))

    def up(self, *flags: str, **config: str) -> str:
        """Runs `pulumi up` with these settings; returns `exit CODE` and all that it said."""
        self._configure(config)
        return self._operation("up", "--yes", "--skip-preview", *flags)

    def preview(self, **config: str) -> str:
        """Runs `pulumi preview` with these settings, which fails on any change."""
        self._configure(config)
        return self._operation("preview", "--expect-no-changes")

    def state(self) -> list[dict[str, Any]]:
        """All resources in the stack's state."""
        return json.loads(self._run("stack", "export"))["deployment"].get("resources", [])

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return json.loads(self._run("stack", "output", "--json"))

    def destroy(self) -> None:
        """Deletes the stack with all that it made."""
        self._run("destroy", "--yes", "--remove")

    def _configure(self, config: Mapping[str, str]) -> None:
        for key, value in config.items():
            self._run("config", "set", key, value)

    def _operation(self, *arguments: str) -> str:
        arguments = (*arguments, "--stack", self._name)
        done = stack.pulumi(*arguments, cwd=self._folder, check=False)
        return f"exit {done.returncode}\n{done.stdout}{done.stderr}"

    def _run(self, *arguments: str) -> str:
        # The other arguments of `stack init` name the stack already.
        selected = () if arguments[:2] == ("stack", "init") else ("--stack", self._name)
        return stack.pulumi(*arguments, *selected, cwd=self._folder).stdout
