"""This repository's environments in a project of a test's own, run by the real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from infra.local import toolbox
from infra.local.paths import CHECKOUT

_ADAPTERS = CHECKOUT / "infra" / "local" / "adapters" / "bin"
_LIMIT_SECONDS = 120


def make_project(folder: Path) -> Path:
    """The project with a state of its own: creating a stack writes to its configuration."""
    toolbox.ensure_tools(["pulumi", "helm"])
    (folder / "state").mkdir()
    for file in CHECKOUT.glob("Pulumi*.yaml"):
        shutil.copy(file, folder)
    for linked in ("infra", ".venv"):
        (folder / linked).symlink_to(CHECKOUT / linked)
    return folder


def run_pulumi(
    project: Path, *arguments: str, stdin: str = "", helm: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the CLI, without anyone's credentials."""
    without_credentials = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.run(
        [str(toolbox.binary("pulumi")), "--non-interactive", "--color=never", *arguments],
        cwd=project,
        env={
            **without_credentials,
            "PATH": f"{_ADAPTERS}:{toolbox.binary('pulumi').parent}:{os.environ['PATH']}",
            "HOME": str(project),
            "PULUMI_HOME": str(project / "home"),
            "PULUMI_BACKEND_URL": f"file://{project / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the tests",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            # Makes the flag --event-log known.
            "PULUMI_DEBUG_COMMANDS": "true",
            "HELM_BINARY": str(helm or toolbox.binary("helm")),
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
