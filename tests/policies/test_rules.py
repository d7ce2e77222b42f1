"""Each rule: content with what environments declare, and what it says of the least change that
breaks it."""

from __future__ import annotations

import pytest

from tests.policies.mutants import MUTANTS, Mutant
from tests.policies.recorded import RULES, changed, environment, one, settings
from voicemesh_policies import rules
from voicemesh_policies.objects import Resource
from voicemesh_policies.rule import COMMON_CONFIG, Rule, Violation, unique, violations
from voicemesh_policies.view import UNKNOWN

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda it: it.rule)
each_rule = pytest.mark.parametrize("rule", rules.ALL, ids=lambda it: it.name)


def said(mutant: Mutant, declared: list[Resource]) -> list[Violation]:
    """What the rule says of a stack whose first resource is the one in question."""
    rule = RULES[mutant.rule]
    own = settings(mutant.stack).get(mutant.rule, {})
    config = {**(own if isinstance(own, dict) else {}), "unknownValues": "violation"}
    return list(violations(rule, declared[:1] if rule.on_resource else declared, config))


def stack_with(mutant: Mutant, resource: Resource) -> list[Resource]:
    rest = [it for it in environment(mutant.stack) if it.urn != resource.urn]
    return [resource, *rest]


def test_every_rule_has_a_mutant_and_every_mutant_a_rule() -> None:
    assert sorted(it.rule for it in MUTANTS) == sorted(RULES)
    assert len(RULES) >= 40


@each_mutant
def test_a_rule_is_content_with_what_is_declared(mutant: Mutant) -> None:
    assert said(mutant, stack_with(mutant, mutant.original())) == []


@each_mutant
def test_a_rule_names_resource_property_value_and_fix(mutant: Mutant) -> None:
    rule = RULES[mutant.rule]
    found = said(mutant, mutant.applied())
    (first, *_) = [it for it in found if all(part in it.message for part in mutant.says)] or found
    for part in mutant.says:
        assert part in first.message
    about = mutant.resource if mutant.about is None else mutant.about
    if about:
        resource = mutant.applied()[0] if mutant.about is None else None
        resource = resource or one(environment(mutant.stack), about)
        assert first.message.startswith(f"{resource.type} {resource.name!r}: ")
        assert first.urn == resource.urn
    assert first.message.endswith(f" Fix: {rule.fix}")


# Pulumi always knows the options of a resource, and its type.
@pytest.mark.parametrize(
    "mutant", [it for it in MUTANTS if it.unknown != ""], ids=lambda it: it.rule
)
def test_an_unknown_value_is_a_violation_that_says_so(mutant: Mutant) -> None:
    rule = RULES[mutant.rule]
    resource = changed(mutant.original(), mutant.unknown or mutant.path, UNKNOWN)
    found = said(mutant, stack_with(mutant, resource))
    unjudged = [it.message for it in found if "is not known before" in it.message]
    assert unjudged, found
    assert all(it.endswith(f" Fix: {rule.fix}") for it in unjudged)


@each_mutant
def test_a_rule_does_not_apply_to_resources_of_other_kinds(mutant: Mutant) -> None:
    rule = RULES[mutant.rule]
    for which in ("RandomId bucket", "Role cluster-node", "LogGroup cluster"):
        other = one(environment("prod-cluster"), which)
        if rule.on_resource is None or not rule.kinds or other.kind not in rule.kinds:
            assert list(violations(rule, [other], settings("prod-cluster"))) == []


@pytest.mark.parametrize("mutant", [it for it in MUTANTS if it.spares], ids=lambda it: it.rule)
def test_a_rule_leaves_resources_alone_that_it_is_not_meant_for(mutant: Mutant) -> None:
    spared = one(environment(mutant.stack), mutant.spares)
    if mutant.rule not in ("own-image-is-named-by-digest", "slice-holds-the-model"):
        spared = changed(spared, mutant.path, mutant.value)
    assert said(mutant, stack_with(mutant, spared)) == []


@each_rule
def test_a_rule_says_what_why_and_how_to_fix_it(rule: Rule) -> None:
    assert rule.what.endswith(".")
    assert rule.why.endswith(".")
    assert not rule.fix.endswith(".")
    assert rule.framework
    assert rule.link.startswith("https://")
    assert (rule.on_resource is None) is not (rule.on_stack is None)


@each_rule
def test_the_settings_of_a_rule_have_types_defaults_and_descriptions(rule: Rule) -> None:
    assert not COMMON_CONFIG.keys() & rule.config.keys()
    for schema in rule.config.values():
        assert {"type", "default", "description"} <= schema.keys()


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two rules are called image-is-exact"):
        unique([RULES["image-is-exact"], RULES["image-is-exact"]])
