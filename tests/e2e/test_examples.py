"""The example of a team's voice comes up on the environment, from the wheel, cleanly installed.

Its platform is the environment's own stack, which it knows by a StackReference.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local import stack
from infra.local.paths import CHECKOUT, STATE
from tests.e2e.environment import Environment, is_ready
from tests.package import clean_install

EXAMPLE = CHECKOUT / "examples" / "team-voice"
NAMESPACE = "newsroom"


@pytest.fixture
def team(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The example's project, copied out of the checkout; what it made is deleted in the end."""
    installation = clean_install.install(
        clean_install.build_wheel(tmp_path / "wheel"), tmp_path / "venv"
    )
    project = tmp_path / "team-voice"
    shutil.copytree(EXAMPLE, project)
    settings = yaml.safe_load((project / "Pulumi.yaml").read_text())
    settings["runtime"]["options"]["virtualenv"] = str(installation.python.parents[1])
    (project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("KUBECONFIG", str(STATE / "kubeconfig"))
    stack.pulumi("stack", "init", "local", cwd=project)
    yield project
    stack.pulumi("destroy", "--yes", "--remove", "--stack", "local", cwd=project)


def test_a_teams_voice_speaks_on_a_platform_known_by_its_outputs(
    team: Path, environment: Environment
) -> None:
    stack.pulumi("up", "--yes", "--skip-preview", "--stack", "local", cwd=team)
    pods = environment.core.list_namespaced_pod(NAMESPACE).items
    # Ready, in the speech server, is who has spoken.
    assert [is_ready(pod) for pod in pods] == [True]
    assert "istio-proxy" in {
        container.name
        for container in (*pods[0].spec.containers, *(pods[0].spec.init_containers or []))
    }
    unchanged = stack.pulumi("preview", "--expect-no-changes", "--stack", "local", cwd=team)
    assert "unchanged" in unchanged.stdout
