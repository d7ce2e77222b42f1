"""Whatever the properties are, a rule says something of them, and never raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policies.mutants import MUTANTS
from tests.policies.recorded import RULES, environment, judged
from voicemesh_policies import rules
from voicemesh_policies.objects import Resource, Stack
from voicemesh_policies.rule import Rule
from voicemesh_policies.view import UNKNOWN, UnknownError

# A change of a resource that exists reaches deeper into a rule than anything made up.
STACK_OF: Final = {it.rule: it.stack for it in MUTANTS}


@cache
def originals() -> Mapping[str, Resource]:
    """By the rules that judge them."""
    return {it.rule: it.original() for it in MUTANTS}


@cache
def _keys() -> list[str]:
    texts = (json.dumps(it.load()) for it in originals().values())
    return sorted({key for text in texts for key in text.split('"') if key.strip()})[:400]


_KEYS: Final = st.deferred(lambda: st.sampled_from(_keys()))
_SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "*", "-1", "1e999", "999999999999999999s", "nan", "{", "[[[[", "9" * 400]),
    _KEYS,
    st.just(UNKNOWN),
)
VALUES: Final = st.recursive(
    _SCALARS,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(_KEYS | st.text(max_size=3), below, max_size=4)
    ),
    max_leaves=12,
)
each_rule = pytest.mark.parametrize("rule", rules.ALL, ids=lambda it: it.name)
lenient = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def with_properties(resource: Resource, properties: Any) -> Resource:
    return Resource(
        resource.type,
        resource.name,
        resource.urn,
        lambda: properties,
        load_provider=lambda: properties,
        dependencies=resource.dependencies,
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value can be put in place of another one."""
    below = value.items() if isinstance(value, dict) else []
    below = enumerate(value) if isinstance(value, list) else below
    return [path, *(place for key, entry in below for place in places(entry, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    """A copy with another value at a place."""
    if not path:
        return to
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: put(value[key], tuple(rest), to)}
    return [put(it, tuple(rest), to) if i == key else it for i, it in enumerate(value)]


def judge(rule: Rule, resources: list[Resource]) -> None:
    """Runs the rule itself, without what would turn an exception into a violation."""
    config = rule.settings({})
    findings = (
        rule.on_resource(resources[0], config)
        if rule.on_resource
        else rule.on_stack(Stack(tuple(resources)), config)  # pyright: ignore
    )
    try:
        for finding in findings:
            assert isinstance(finding.path + finding.shown + finding.problem, str)
            assert len(finding.shown) < 200
    except UnknownError:
        pass


@each_rule
@lenient
@given(data=st.data())
def test_a_rule_survives_any_value_in_any_place(rule: Rule, data: st.DataObject) -> None:
    original = originals()[rule.name]
    properties = original.load()
    place = data.draw(st.sampled_from(places(properties)))
    mutant = with_properties(original, put(properties, place, data.draw(VALUES)))
    others = [it for it in environment(STACK_OF[rule.name]) if it.urn != original.urn]
    judge(rule, [mutant, *others] if rule.on_stack else [mutant])


@each_rule
@lenient
@given(properties=VALUES)
def test_a_rule_survives_properties_of_any_shape(rule: Rule, properties: Any) -> None:
    judge(rule, [with_properties(originals()[rule.name], properties)])


@given(st.lists(VALUES, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_rules_about_stacks_survive_resources_of_any_shape(shapes: list[Any]) -> None:
    declared = list(originals().values())
    resources = [
        with_properties(original, shapes[index % len(shapes)])
        for index, original in enumerate(declared)
    ]
    for rule in rules.ALL:
        if rule.on_stack:
            judge(rule, resources)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"spec": value, "typed_config": value, "http": [value]}
    return value


@pytest.mark.parametrize(
    "properties",
    [
        {"spec": {"subsets": [{"labels": {str(i): "x" for i in range(2_000)}}] * 20}},
        {"spec": {"http": [{"route": [], "match": []}] * 5_000}},
        {"policy": "[" * 100_000},
        {"policy": json.dumps({"Statement": [{"Effect": "Allow"}] * 5_000})},
        {"spec": {"template": {"spec": {"containers": [{"image": "a" * 1_000_000}]}}}},
    ],
    ids=["wide", "long", "unclosed", "many-statements", "one-large-text"],
)
def test_rules_survive_what_is_huge(properties: Any) -> None:
    for original in {it.type: it for it in originals().values()}.values():
        resource = with_properties(original, properties)
        said = judged(rules.ALL, [resource], {})
        assert not [it for name in said for it in said[name] if "in the rule itself" in it]
        assert all(len(it) < 2_000 for name in said for it in said[name])


def test_rules_survive_what_is_nested_deeply() -> None:
    line: Any = "deep"
    for _ in range(5_000):
        line = {"typed_config": line}
    deep = {"spec": {"configPatches": [{"applyTo": "CLUSTER", "patch": {"value": line}}]}}
    for original in {it.type: it for it in originals().values()}.values():
        said = judged(rules.ALL, [with_properties(original, deep)], {})
        assert not [it for name in said for it in said[name] if "in the rule itself" in it]


def test_a_rule_that_fails_is_a_violation_that_says_so() -> None:
    rule = RULES["image-is-exact"]

    def faulty() -> Any:
        raise RuntimeError("no")

    resource = Resource("kubernetes:apps/v1:Deployment", "voice", "urn:voice", faulty)
    (message,) = judged([rule], [resource], {})["image-is-exact"]
    assert "RuntimeError in the rule itself" in message
