"""Runs the program of a stack as a preview does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pulumi.runtime.proto import analyzer_pb2

from voicemesh.policy import program_runner
from voicemesh.policy.errors import ConfigurationError, ProgramError
from voicemesh.policy.monitor import ORGANIZATION, Engine, Monitor, Notes, Surroundings, serving
from voicemesh.policy.project import Project, StackConfiguration

_RUNNER: Final = Path(program_runner.__file__)
_PARALLEL: Final = 4


def run_program(
    project: Project,
    configuration: StackConfiguration,
    surroundings: Surroundings,
    declare: Callable[[analyzer_pb2.AnalyzerResource], None],
) -> Notes:
    """Everything that the program of a stack declares.

    Args:
        declare: called with each resource as soon as it is declared.

    Raises:
        ConfigurationError: the program is not in Python.
        ProgramError: it failed.
    """
    if project.runtime != "python":
        raise ConfigurationError(
            f"Pulumi.yaml: runtime: {project.runtime!r}; the gate runs programs in Python only: "
            "check others with `pulumi preview --policy-pack`"
        )
    notes, engine = Notes(declare), Engine()
    with serving(engine, Monitor(surroundings, notes)) as address:
        done = subprocess.run(
            [
                *(str(project.interpreter), "-u", str(_RUNNER)),
                *(f"--{name}={address}" for name in ("monitor", "engine")),
                f"--project={project.name}",
                f"--stack={surroundings.stack}",
                f"--organization={ORGANIZATION}",
                f"--root_directory={project.folder}",
                f"--parallel={_PARALLEL}",
                "--dry_run=true",
                "--debug=false",
                f"--pwd={project.working_directory}",
                "--",
                str(project.program),
            ],
            cwd=project.working_directory,
            env={
                **os.environ,
                "PULUMI_CONFIG": json.dumps(dict(configuration.values)),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(sorted(configuration.secret_keys)),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        reasons = engine.errors or [done.stderr.strip() or f"exit status {done.returncode}"]
        raise ProgramError(
            f"the program of stack {surroundings.stack} failed:\n" + "\n".join(reasons)
        )
    return notes
