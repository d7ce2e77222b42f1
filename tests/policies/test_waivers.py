"""A waiver excuses one resource from one rule until its day is over."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import pytest

from tests.policies.mutants import MUTANTS
from tests.policies.recorded import RULES, environment, settings
from tests.stacks import STACKS
from voicemesh_policies import rule as rule_module
from voicemesh_policies.objects import Resource
from voicemesh_policies.rule import violations

(MUTANT,) = [it for it in MUTANTS if it.rule == "image-is-read-only"]
(OF_STACK,) = [it for it in MUTANTS if it.rule == "namespaces-have-limits"]
RULE = RULES[MUTANT.rule]
NAME = MUTANT.resource.split()[1]
TODAY = date(2026, 11, 30)


@cache
def broken() -> Resource:
    return MUTANT.applied()[0]


def waiver(**changes: Any) -> dict[str, Any]:
    whole = {"resource": NAME, "reason": "it is being mended", "expires": "2026-11-30"}
    return {"waivers": [{key: it for key, it in {**whole, **changes}.items() if it is not None}]}


def said(config: dict[str, Any], today: date = TODAY) -> list[str]:
    return [it.message for it in violations(RULE, [broken()], config, today)]


@pytest.mark.parametrize(
    "resource", [NAME, "studio-*", "urn:pulumi:prod::*::studio-narrator-stable"]
)
def test_a_waiver_names_its_resource_by_name_or_urn(resource: str) -> None:
    assert len(said({})) == 1
    assert said(waiver(resource=resource)) == []


@pytest.mark.parametrize("resource", ["studio-narrator", "urn:pulumi:dev::*", "?"])
def test_a_waiver_of_another_resource_does_not_count(resource: str) -> None:
    assert said(waiver(resource=resource)) == said({})


def test_a_waiver_counts_on_its_last_day_and_is_a_violation_on_the_next() -> None:
    assert said(waiver(), date(2026, 11, 30)) == []
    expired, broken = said(waiver(), date(2026, 12, 1))
    assert "expired on 2026-11-30" in expired
    assert "it is being mended" in expired
    assert broken == said({})[0]


def test_an_expired_waiver_fails_even_where_its_resource_is_mended() -> None:
    (expired,) = violations(RULE, [MUTANT.original()], waiver(), date(2026, 12, 1))
    assert "remove the waiver" in expired.message
    assert expired.urn == broken().urn


def test_an_expired_waiver_of_a_resource_that_is_not_there_says_nothing() -> None:
    gone = waiver(resource="gone")
    assert list(violations(RULE, [MUTANT.original()], gone, date(2026, 12, 1))) == []


def test_the_day_is_that_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            assert tz is UTC
            return datetime(2026, 11, 30, 23, 59, tzinfo=UTC)

    monkeypatch.setattr(rule_module, "datetime", Clock)
    assert list(violations(RULE, [broken()], waiver())) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": None},
        {"reason": ""},
        {"resource": None},
        {"expires": None},
        {"expires": "soon"},
        {"expires": "2026-13-01"},
        {"expires": 20261130},
    ],
)
def test_a_waiver_that_is_not_whole_is_a_violation_and_does_not_count(changes: Any) -> None:
    fault, broken = said(waiver(**changes))
    assert fault.startswith("waivers[0] is ")
    assert broken == said({})[0]


def test_a_waiver_excuses_one_resource_of_a_rule_about_a_stack() -> None:
    rule, resources = RULES[OF_STACK.rule], OF_STACK.applied()
    waived = waiver(resource="studio")
    assert len(list(violations(rule, resources, {}, TODAY))) == 1
    assert list(violations(rule, resources, waived, TODAY)) == []
    assert len(list(violations(rule, resources, waiver(resource="captions"), TODAY))) == 1


@pytest.mark.parametrize("stack", STACKS)
def test_every_waiver_of_an_environment_is_of_a_rule_and_whole(stack: str) -> None:
    for name, own in settings(stack).items():
        assert name in RULES
        if isinstance(own, dict):
            config = RULES[name].settings(own)
            waivers, faults = rule_module._waivers(config)
            assert not faults
            assert len(waivers) == len(own.get("waivers", []))
    assert environment(stack)
