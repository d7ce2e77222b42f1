"""The gate lets every environment and example pass, and none that one fault was put into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from pulumi.runtime.proto import analyzer_pb2

from infra.local import toolbox
from tests.policies.mutants import MUTANTS, Mutant
from tests.policies.recorded import EXAMPLES, changed, settings
from tests.stacks import PROJECT, ROOT, STACKS
from voicemesh.policy.charts import Charts
from voicemesh.policy.gate import Gate, Verdict, check, declarations, refuses
from voicemesh.policy.pack import Level, Pack, Violation, settings_from, started
from voicemesh.policy.project import Project
from voicemesh.policy.resources import revealed, struct
from voicemesh.urns import STACK_TYPE, child_urn
from voicemesh_policies.objects import Resource

PACK = ROOT / "policies"
ENVIRONMENTS = Project.at(ROOT)
OF_OTHERS = {
    "addons-nvidia-device-plugin",
    "addons-dcgm-exporter",
    "addons-aws-load-balancer-controller",
    "addons-cluster-autoscaler",
}
"""Releases of charts that are not Istio's, and not on this machine."""


Declared = dict[str, analyzer_pb2.AnalyzerResource]


class Judges:
    """The pack, once for each configuration that the faults are judged with."""

    def __init__(self, stack: ExitStack) -> None:
        self._exits = stack
        self._packs: dict[str, Pack] = {}

    def judge(self, mutant: Mutant) -> Pack:
        """The pack as a fault's stack configures it; it says nothing mandatory to the stack."""
        own = {**settings(mutant.stack), **mutant.config}
        key = f"{mutant.stack} {own}"
        if key not in self._packs:
            pack = self._exits.enter_context(started(PACK, ROOT))
            config = ENVIRONMENTS.configuration_of(mutant.stack)
            pack.configure(mutant.stack, PROJECT, config, settings_from(own, "the fault"))
            assert _mandatory(of_stack(pack, mutant.stack, declared_by(mutant.stack))) == []
            self._packs[key] = pack
        return self._packs[key]


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    with ExitStack() as stack:
        yield Judges(stack)


@pytest.fixture(scope="module")
def charts() -> Charts:
    toolbox.ensure_tools(["helm", "istio"])
    return Charts(str(toolbox.binary("helm")), (toolbox.istio_charts(),))


@pytest.mark.parametrize("stack", STACKS)
def test_an_environment_passes_with_the_content_of_its_charts(stack: str, charts: Charts) -> None:
    verdict = check(ENVIRONMENTS, stack, Gate(PACK, charts))
    assert _mandatory(verdict.violations) == []
    assert not verdict.refused
    assert {it.what.rpartition("::")[2] for it in verdict.unchecked} <= OF_OTHERS
    istiod = [urn for urn in verdict.resources if urn.endswith("::istio-system/istiod")]
    assert bool(istiod) is (stack != "prod-cluster")


@pytest.mark.parametrize(("folder", "stack"), EXAMPLES)
def test_an_example_passes(folder: str, stack: str) -> None:
    verdict = _of_example(folder, stack)
    assert _mandatory(verdict.violations) == []
    assert all("kubernetes:helm.sh/v3:Release" in it.what for it in verdict.unchecked)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda it: it.rule)
def test_a_fault_is_refused_for_its_rule_alone(mutant: Mutant, judges: Judges) -> None:
    pack, declared = judges.judge(mutant), declared_by(mutant.stack)
    original = mutant.original()
    found = declared.get(original.urn)
    faulty = _with(
        found, changed(_as_rules_see(found) if found else original, mutant.path, mutant.value)
    )
    violations = [
        *pack.analyze(faulty),
        *of_stack(pack, mutant.stack, {**declared, original.urn: faulty}),
    ]
    assert refuses(violations)
    assert set(_mandatory(violations)) == {mutant.rule}, violations


@cache
def declared_by(stack: str) -> Declared:
    """What the program of an environment declares, by URN."""
    notes = declarations(ENVIRONMENTS, stack, Gate(PACK))
    return {resource.urn: resource for resource in notes.resources}


def of_stack(pack: Pack, stack: str, declared: Declared) -> list[Violation]:
    root = child_urn(stack, PROJECT, "", STACK_TYPE, f"{PROJECT}-{stack}")
    return pack.analyze_stack(declared.values(), root)


def _of_example(folder: str, stack: str) -> Verdict:
    project = Project.at(ROOT / "examples" / folder)
    return check(project, stack, Gate(PACK, Charts(helm="no-helm")))


def _mandatory(violations: Iterable[Violation]) -> list[str]:
    return [it.policy for it in violations if it.level is Level.MANDATORY]


def _as_rules_see(resource: analyzer_pb2.AnalyzerResource) -> Resource:
    properties = revealed(resource.properties)
    return Resource(
        type=resource.type,
        name=resource.name,
        urn=resource.urn,
        load=lambda: properties,
        protect=resource.options.protect,
    )


def _with(
    original: analyzer_pb2.AnalyzerResource | None, faulty: Resource
) -> analyzer_pb2.AnalyzerResource:
    """The resource with its fault; all else is as it was."""
    resource = analyzer_pb2.AnalyzerResource()
    if original is not None:
        resource.CopyFrom(original)
    resource.urn, resource.type, resource.name = faulty.urn, faulty.type, faulty.name
    resource.options.protect = faulty.protect
    resource.properties.CopyFrom(struct(faulty.load()))
    return resource
