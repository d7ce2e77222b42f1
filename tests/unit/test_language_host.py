"""How the language host starts a program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pulumi.runtime.proto import language_pb2

from infra.local.adapters.language_host import interpreter, runner_arguments


def test_a_program_runs_in_the_projects_virtual_environment(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter({"virtualenv": ".venv"}, tmp_path) == python
    assert interpreter({}, tmp_path) == Path(sys.executable)
    with pytest.raises(FileNotFoundError, match=r"virtualenv is '\.env'"):
        interpreter({"virtualenv": ".env"}, tmp_path)


def test_the_runner_is_told_what_the_engine_said() -> None:
    request = language_pb2.RunRequest(
        project="p",
        stack="s",
        pwd="/project/infra",
        monitor_address="127.0.0.1:1",
        dryRun=True,
        parallel=8,
        organization="o",
        args=["extra"],
        info=language_pb2.ProgramInfo(
            root_directory="/project", program_directory="/project/infra", entry_point="."
        ),
    )
    told = runner_arguments(request, "127.0.0.1:2")
    assert set(told) >= {
        "--monitor=127.0.0.1:1",
        "--engine=127.0.0.1:2",
        "--dry_run=true",
        "--parallel=8",
        "--root_directory=/project",
    }
    assert told[-3:] == ["--", "/project/infra", "extra"]
