"""Fifty voices of twenty tenants in one program, as the benchmark declares them."""

from __future__ import annotations

import pytest

from tests.bench.registrations import TENANTS, program
from tests.preview import rules
from tests.preview.rules import DEPLOYMENT, VIRTUAL_SERVICE, mutated
from voicemesh.testing import Recording, record

VOICES = 50


@pytest.fixture(scope="module")
def many() -> Recording:
    return record(lambda: program(VOICES))


def test_all_of_them_are_declared(many: Recording) -> None:
    assert len(many.of_type("voicemesh:index:TtsVoiceService")) == VOICES
    assert len(many.of_type("voicemesh:index:TenantNamespace")) == TENANTS


def test_none_of_them_is_in_anothers_way(many: Recording) -> None:
    assert list(rules.no_object_is_declared_twice(many)) == []
    assert list(rules.every_resource_is_the_child_of_a_component(many)) == []
    hosts = [
        host for routes in many.of_type(VIRTUAL_SERVICE) for host in routes.inputs["spec"]["hosts"]
    ]
    assert len(set(hosts)) == len(hosts) == 2 * VOICES


def test_a_voice_in_anothers_way_would_be_noticed(many: Recording) -> None:
    same_name = mutated(
        many, DEPLOYMENT, lambda inputs: inputs["metadata"].update(name="voice-0-stable")
    )
    assert list(rules.no_object_is_declared_twice(same_name))


def test_each_voice_adds_as_many_resources_as_the_first(many: Recording) -> None:
    few, more = (len(record(lambda n=n: program(n)).registrations) for n in (1, 2))
    assert len(many.registrations) == few + (VOICES - 1) * (more - few)
