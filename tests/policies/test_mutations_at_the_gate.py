"""The gate refuses each mutant, by the pack in a process of its own, and lets the originals in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.policies.mutants import MUTANTS, Mutant
from tests.policies.recorded import environment, settings
from tests.policies.test_pack import in_stack
from tests.stacks import ROOT, STACKS
from voicemesh.policy.gate import refuses
from voicemesh.policy.pack import Pack, Violation, settings_from, started
from voicemesh.policy.project import StackConfiguration
from voicemesh_policies.objects import Resource


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    with started(ROOT / "policies", ROOT) as running:
        yield running


def judged(
    pack: Pack, stack: str, config: Any, declared: list[Resource], count: int
) -> list[Violation]:
    """What the pack says of a stack, and of as many of its resources, the first ones."""
    pack.configure(
        stack, "voicemesh", StackConfiguration({}, frozenset()), settings_from(config, stack)
    )
    resources = [in_stack(it) for it in declared]
    violations = [found for it in resources[:count] for found in pack.analyze(it)]
    return [*violations, *pack.analyze_stack(resources, "")]


@pytest.mark.parametrize("stack", STACKS)
def test_the_gate_lets_what_is_declared_in(pack: Pack, stack: str) -> None:
    declared = list(environment(stack))
    violations = judged(pack, stack, settings(stack), declared, len(declared))
    assert violations == []
    assert not refuses(violations)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda it: it.rule)
def test_the_gate_refuses_a_mutant(pack: Pack, mutant: Mutant) -> None:
    config = {**settings(mutant.stack), **mutant.config}
    violations = judged(pack, mutant.stack, config, mutant.applied(), 1)
    assert {it.policy for it in violations} == {mutant.rule}
    assert refuses(violations)
