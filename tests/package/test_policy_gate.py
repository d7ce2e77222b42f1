"""Another team installs the gate and the pack, and holds its own stack to the rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.package import clean_install
from tests.package.clean_install import Installation
from tests.stacks import ROOT

EXAMPLE = ROOT / "examples" / "team-voice"
COMMAND = "from voicemesh.cli import app; app()"


@pytest.fixture(scope="module")
def gate(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    pack = clean_install.build_wheel(tmp_path_factory.mktemp("pack"), ROOT / "policies")
    folder = tmp_path_factory.mktemp("gate") / "venv"
    return clean_install.install(f"{wheel}[cli]", folder, pack)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """The example's project, with a pack of its own that takes the installed rules."""
    project = tmp_path / "team-voice"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(".venv"))
    for name in ("PulumiPolicy.yaml", "__main__.py"):
        shutil.copy(ROOT / "policies" / name, project / "policies")
    return project


def test_a_teams_stack_passes_the_installed_rules(gate: Installation, team: Path) -> None:
    done = gate.run("-c", COMMAND, "policy", "check", "--all", cwd=team)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stack prod: passed" in done.stdout
    assert "stack local: passed" in done.stdout


def test_an_image_without_a_digest_is_refused(gate: Installation, team: Path) -> None:
    file = team / "Pulumi.prod.yaml"
    config = yaml.safe_load(file.read_text())
    image = config["config"]["team-voice:image"]
    config["config"]["team-voice:image"] = image.partition("@")[0]
    file.write_text(yaml.safe_dump(config))
    report = team / "policies.sarif"
    done = gate.run("-c", COMMAND, "policy", "check", "prod", "--sarif", str(report), cwd=team)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "own-image-is-named-by-digest" in report.read_text()
