"""On the environment that is up, the policy gate has the verdicts of the engine that made it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.local import stack, toolbox
from infra.local.paths import CHECKOUT
from tests.e2e.environment import Environment
from tests.policies.verdicts import Said, Verdicts, of_engine, of_gate
from voicemesh.policy.charts import RELEASE, Charts
from voicemesh.policy.gate import Gate, Verdict, check
from voicemesh.policy.project import Project

PACK = CHECKOUT / "policies"
CONFIGURATION = PACK / "config" / "local.json"


@pytest.fixture
def project(environment: Environment, tmp_path: Path) -> Path:
    """The project with the configuration that `up` works on, and so without stand-ins."""
    for linked in ("Pulumi.yaml", "infra", ".venv"):
        (tmp_path / linked).symlink_to(CHECKOUT / linked)
    shutil.copy(stack.CONFIG_FILE, tmp_path)
    return tmp_path


def test_gate_and_engine_agree_on_what_is_deployed(project: Path, tmp_path: Path) -> None:
    (project / "policies" / "config").mkdir(parents=True)
    shutil.copy(CONFIGURATION, project / "policies" / "config")
    refused, by_engine = _preview(tmp_path / "events", "--policy-pack-config", str(CONFIGURATION))
    verdict = _check(project)
    assert not refused
    assert not verdict.refused
    assert _of_program(verdict) == by_engine


def test_gate_and_engine_both_refuse_what_the_pack_refuses_by_default(
    project: Path, tmp_path: Path
) -> None:
    refused, by_engine = _preview(tmp_path / "events")
    verdict = _check(project)
    assert refused
    assert verdict.refused
    assert _of_program(verdict) == by_engine


def test_all_charts_of_the_environment_are_checked(project: Path) -> None:
    verdict = _check(project)
    assert verdict.unchecked == ()
    assert any(f"{RELEASE}$" in urn for urn in verdict.resources)


def _check(project: Path) -> Verdict:
    charts = Charts(str(toolbox.binary("helm")))
    return check(Project.at(project), stack.STACK, Gate(PACK, charts))


def _of_program(verdict: Verdict) -> Verdicts:
    """What is said of the program's own resources, as far as a value need not be known: to the
    engine, what is deployed is."""
    return {
        key: said
        for key, said in of_gate(verdict).items()
        if f"{RELEASE}$" not in key[0] and not any(map(_is_unjudged, said))
    }


def _is_unjudged(said: Said) -> bool:
    return any(words in said[2] for words in ("is not known before", "can't be known"))


def _preview(events: Path, *flags: str) -> tuple[bool, Verdicts]:
    """Whether the engine refuses the stack as it is up, and what the pack says to it."""
    packs = ("--policy-pack", str(PACK), *flags)
    done = stack.pulumi("preview", *packs, *stack.WORKING, "--event-log", str(events), check=False)
    assert events.exists(), done.stdout + done.stderr
    return done.returncode != 0, of_engine(events)
