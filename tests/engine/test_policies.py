"""The policy gate tells packs what the real engine tells them, and so has the same verdicts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.paths import CHECKOUT
from tests.engine.environments import make_project, run_pulumi
from tests.policies.verdicts import Verdicts, of_engine, of_gate
from tests.stacks import CLUSTER_OF, PROJECT, STACKS
from voicemesh.policy.charts import RELEASE, Charts
from voicemesh.policy.gate import Gate, StandIns, check, declarations
from voicemesh.policy.monitor import ORGANIZATION
from voicemesh.policy.project import Project, opened
from voicemesh.policy.resources import UNKNOWN, revealed
from voicemesh.urns import STACK_TYPE, child_urn

PACK = CHECKOUT / "policies"
TELLTALE = CHECKOUT / "tests" / "policies" / "packs" / "telltale"
WITHOUT_CHARTS = Charts(helm="no-helm")
"""An engine sees a chart as one resource."""
OWNER = CLUSTER_OF["prod"]
_MASKED = "[secret]"
_OF_CHARTS = ("checksum", "resourceNames", "compat")
"""Inputs of a Helm release that its provider adds to, or takes from, those of the program."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path) -> Path:
    """The environments, with the cluster of the tests wherever they need one."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    shutil.copytree(PACK / "config", folder / "policies" / "config")
    stand_ins = yaml.safe_load((PACK / "gate.yaml").read_text())
    stand_ins["config"]["local"]["cluster.kubeconfig"] = str(kubeconfig)
    stand_ins["outputs"][_full_name(OWNER)]["kubeconfig"] = {"secure": kubeconfig.read_text()}
    (folder / "policies" / "gate.yaml").write_text(yaml.safe_dump(stand_ins))
    for stack in STACKS:
        _bring_about(folder, stack)
    return folder


@pytest.mark.parametrize("stack", STACKS)
def test_gate_and_engine_agree(stack: str, project: Path) -> None:
    configuration = project / "policies" / "config" / f"{stack}.json"
    refused, by_engine = _preview(project, stack, {PACK: configuration, TELLTALE: None})
    verdict = check(Project.at(project), stack, Gate(PACK, WITHOUT_CHARTS))
    assert verdict.refused is refused
    assert of_gate(verdict) == {k: v for k, v in by_engine.items() if not _is_told(k)}
    # What the rules made of it is the same, for they were told the same.
    by_gate = _told(of_gate(check(_unconfigured(project), stack, Gate(TELLTALE, WITHOUT_CHARTS))))
    told_by_engine = _told({k: v for k, v in by_engine.items() if _is_told(k)})
    assert set(by_gate) == set(told_by_engine)
    for key, told in by_gate.items():
        name = key[0].rpartition("::")[2]
        assert _without_what_a_provider_adds(told_by_engine[key], told, name) == told, key


def test_gate_and_engine_both_refuse_what_a_pack_refuses_by_default(project: Path) -> None:
    refused, by_engine = _preview(project, "dev", {PACK: None})
    verdict = check(_unconfigured(project), "dev", Gate(PACK, WITHOUT_CHARTS))
    assert by_engine
    assert of_gate(verdict) == by_engine
    assert refused
    assert verdict.refused


def _bring_about(project: Path, stack: str) -> None:
    """Makes a stack with what its previews need: configuration, and what it refers to."""
    assert run_pulumi(project, "stack", "init", stack).returncode == 0
    here = Project.at(project)
    for path, value in StandIns.of_project(here).config.get(stack, {}).items():
        kind, text = (
            ("secret", value["secure"]) if isinstance(value, dict) else ("plaintext", value)
        )
        flags = [f"--{kind}", "--path", "--stack", stack]
        done = run_pulumi(project, "config", "set", *flags, "--", f"{PROJECT}:{path}", text)
        assert done.returncode == 0, done.stderr
    if stack == OWNER:
        outputs = declarations(here, stack, Gate(PACK)).stack_outputs
        given = opened(StandIns.of_project(here).outputs[_full_name(stack)], str)
        _deploy(project, stack, {**revealed(outputs), **given})


def _deploy(project: Path, stack: str, outputs: Mapping[str, Any]) -> None:
    """Gives a stack a state in which it has these outputs, and nothing else."""
    urn = child_urn(stack, PROJECT, "", STACK_TYPE, f"{PROJECT}-{stack}")
    deployment = {"resources": [{"urn": urn, "type": STACK_TYPE, "outputs": outputs}]}
    state = json.dumps({"version": 3, "deployment": deployment})
    done = run_pulumi(project, "stack", "import", "--stack", stack, stdin=state)
    assert done.returncode == 0, done.stderr


def _full_name(stack: str) -> str:
    return f"{ORGANIZATION}/{PROJECT}/{stack}"


def _unconfigured(project: Path) -> Project:
    """The project, with packs as they are by default."""
    folder = project / "unconfigured"
    if not folder.exists():
        folder.mkdir()
        for file in [*project.glob("Pulumi*.yaml"), project / "infra", project / ".venv"]:
            (folder / file.name).symlink_to(file)
        (folder / "policies").mkdir()
        (folder / "policies" / "gate.yaml").symlink_to(project / "policies" / "gate.yaml")
    return Project.at(folder)


def _preview(project: Path, stack: str, packs: Mapping[Path, Path | None]) -> tuple[bool, Verdicts]:
    """Whether the engine refuses a stack, and what packs with these configurations say to it."""
    events = project / f"{stack}.events"
    events.unlink(missing_ok=True)
    nothing = project / "nothing.json"
    nothing.write_text("{}")
    flags = ["--stack", stack, "--event-log", str(events)]
    for pack, configuration in packs.items():
        flags += ["--policy-pack", str(pack), "--policy-pack-config", str(configuration or nothing)]
    done = run_pulumi(project, "preview", *flags, helm=_helm_that_renders_nothing(project))
    assert events.exists(), done.stdout + done.stderr
    return done.returncode != 0, of_engine(events)


def _helm_that_renders_nothing(project: Path) -> Path:
    """The provider renders a chart to check it, which takes the network for most."""
    helm = project / "helm-that-renders-nothing"
    helm.write_text("#!/bin/sh\n")
    helm.chmod(0o755)
    return helm


def _is_told(key: tuple[str, str]) -> bool:
    return key[1].startswith("tell-")


def _told(verdicts: Verdicts) -> dict[tuple[str, str], Any]:
    told = {key: json.loads(said[0][2]) for key, said in verdicts.items()}
    for about in told.values():
        if about["type"] == RELEASE:
            properties = about.get("properties", {}).items()
            about["properties"] = {k: v for k, v in properties if k not in _OF_CHARTS}
    return told


def _without_what_a_provider_adds(engine: Any, gate: Any, name: str) -> Any:
    """What the engine told, without what its provider added to the inputs: a name for whatever has
    none, so that it is known where the gate does not know it, and default tags. What it masks in
    its own output counts as the same."""
    if gate == UNKNOWN or engine == _MASKED:
        return gate
    if not isinstance(engine, dict) or not isinstance(gate, dict):
        return engine
    made_up = re.compile(rf"{re.escape(name)}-[0-9a-f]{{7}}")
    kept = {
        key: _without_what_a_provider_adds(value, gate.get(key), name)
        for key, value in engine.items()
        if key in gate or not (isinstance(value, str) and made_up.fullmatch(value))
    }
    tags = gate.get("tags", {})
    if isinstance(tags, dict) and "tags" in kept:
        kept["tags"] = {key: value for key, value in kept["tags"].items() if key in tags}
    return kept
