"""Every environment and example keeps to every rule, and one fault breaks exactly one rule."""

from __future__ import annotations

import pytest

from tests.policies.mutants import MESH_RULES, MUTANTS, VARIANTS, Mutant
from tests.policies.recorded import (
    EXAMPLES,
    RULES,
    environment,
    example,
    judged,
    settings,
)
from tests.stacks import STACKS
from voicemesh_policies import istio

INVALID_ON_PURPOSE = {"istio-version-is-served", "istio-fields-exist", "istio-values-fit"}


@pytest.mark.parametrize("stack", STACKS)
def test_no_rule_says_anything_about_an_environment(stack: str) -> None:
    assert judged(RULES.values(), environment(stack), settings(stack)) == {}


@pytest.mark.parametrize(("folder", "stack"), EXAMPLES)
def test_no_rule_says_anything_about_an_example(folder: str, stack: str) -> None:
    said = judged(RULES.values(), example(folder, stack), settings(stack, f"examples/{folder}"))
    assert said == {}


@pytest.mark.parametrize(
    "mutant",
    [*MUTANTS, *VARIANTS],
    ids=lambda it: f"{it.rule}-{it.path.rpartition('.')[2]}",
)
def test_a_fault_is_found_by_its_rule_and_by_no_other(mutant: Mutant) -> None:
    declared = mutant.applied()
    config = {**settings(mutant.stack), **mutant.config}
    # What is said of the resources that did not change is known: nothing.
    about_one = [it for it in RULES.values() if it.on_resource]
    about_all = [it for it in RULES.values() if it.on_stack]
    said = judged(about_one, declared[:1], config) | judged(about_all, declared, config)
    assert set(said) == {mutant.rule}, said
    assert all(any(part in it for it in said[mutant.rule]) for part in mutant.says)


@pytest.mark.parametrize(
    "mutant",
    [it for it in MESH_RULES if it.rule not in INVALID_ON_PURPOSE],
    ids=lambda it: it.rule,
)
def test_a_mutant_of_istio_is_what_istio_takes(mutant: Mutant) -> None:
    resource = mutant.applied()[0]
    schema = istio.schema(resource.group, resource.version, resource.kind)
    assert schema is not None
    assert list(istio.unknown_fields(resource.spec, schema)) == []
    assert list(istio.wrong_values(resource.spec, schema)) == []
