"""Environments on AWS, previewed by the real engine, without credentials and without a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local import toolbox
from infra.local.paths import CHECKOUT
from tests.stacks import STACKS

ADAPTERS = CHECKOUT / "infra" / "local" / "adapters" / "bin"
_LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a state of its own: creating a stack writes to its configuration."""
    toolbox.ensure_tools(["pulumi", "helm"])
    folder = tmp_path_factory.mktemp("project")
    (folder / "state").mkdir()
    for file in CHECKOUT.glob("Pulumi*.yaml"):
        shutil.copy(file, folder)
    for linked in ("infra", ".venv"):
        (folder / linked).symlink_to(CHECKOUT / linked)
    return folder


@pytest.mark.parametrize("stack", ["dev", "staging", "prod-cluster"])
def test_a_stack_that_owns_its_cluster_previews_without_credentials(
    stack: str, project: Path
) -> None:
    _pulumi(project, "stack", "init", stack)
    previewed = _pulumi(project, "preview", "--stack", stack)
    assert previewed.returncode == 0, previewed.stdout
    assert re.search(rf'clusterName *: "voicemesh-{stack}"', previewed.stdout)
    assert re.search(r"kubeconfig *: \[secret\]", previewed.stdout)
    assert "get-token" not in previewed.stdout


def test_production_waits_for_its_cluster(project: Path) -> None:
    _pulumi(project, "stack", "init", "prod")
    previewed = _pulumi(project, "preview", "--stack", "prod")
    assert previewed.returncode != 0
    assert "voicemesh:cluster.stack: organization/voicemesh/prod-cluster" in previewed.stdout


def test_a_mistake_is_reported_before_anything_is_planned(project: Path) -> None:
    name = "mistaken"
    assert name not in STACKS
    text = (project / "Pulumi.dev.yaml").read_text()
    (project / f"Pulumi.{name}.yaml").write_text(text.replace("weight: 90", "weight: 80"))
    _pulumi(project, "stack", "init", name)
    previewed = _pulumi(project, "preview", "--stack", name)
    assert previewed.returncode != 0
    assert (
        "voicemesh:voices[0].variants: '80 + 10'; allowed: weights that add up to 100"
        in previewed.stdout
    )
    assert "aws:" not in previewed.stdout


def _pulumi(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    without_credentials = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.run(
        [str(toolbox.binary("pulumi")), *arguments, "--non-interactive", "--color=never"],
        cwd=project,
        env={
            **without_credentials,
            "PATH": f"{ADAPTERS}:{toolbox.binary('pulumi').parent}:{os.environ['PATH']}",
            "HOME": str(project),
            "PULUMI_HOME": str(project / "home"),
            "PULUMI_BACKEND_URL": f"file://{project / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the tests",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "HELM_BINARY": str(toolbox.binary("helm")),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
