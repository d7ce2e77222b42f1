"""Environments on AWS, previewed by the real engine, without credentials and without a cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.engine.environments import make_project, run_pulumi
from tests.stacks import STACKS


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("stack", ["dev", "staging", "prod-cluster"])
def test_a_stack_that_owns_its_cluster_previews_without_credentials(
    stack: str, project: Path
) -> None:
    run_pulumi(project, "stack", "init", stack)
    previewed = run_pulumi(project, "preview", "--stack", stack)
    assert previewed.returncode == 0, previewed.stdout
    assert re.search(rf'clusterName *: "voicemesh-{stack}"', previewed.stdout)
    assert re.search(r"kubeconfig *: \[secret\]", previewed.stdout)
    assert "get-token" not in previewed.stdout


def test_production_waits_for_its_cluster(project: Path) -> None:
    run_pulumi(project, "stack", "init", "prod")
    previewed = run_pulumi(project, "preview", "--stack", "prod")
    assert previewed.returncode != 0
    assert "voicemesh:cluster.stack: organization/voicemesh/prod-cluster" in previewed.stdout


def test_a_mistake_is_reported_before_anything_is_planned(project: Path) -> None:
    name = "mistaken"
    assert name not in STACKS
    text = (project / "Pulumi.dev.yaml").read_text()
    (project / f"Pulumi.{name}.yaml").write_text(text.replace("weight: 90", "weight: 80"))
    run_pulumi(project, "stack", "init", name)
    previewed = run_pulumi(project, "preview", "--stack", name)
    assert previewed.returncode != 0
    assert (
        "voicemesh:voices[0].variants: '80 + 10'; allowed: weights that add up to 100"
        in previewed.stdout
    )
    assert "aws:" not in previewed.stdout
