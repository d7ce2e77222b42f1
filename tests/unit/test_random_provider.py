"""Random values."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.adapters.property_values import Secret
from infra.local.adapters.provider_base import (
    Call,
    CheckFailedError,
    ResourceType,
    UnsupportedTypeError,
)
from infra.local.adapters.random_provider import RandomProvider, draw_text


def call(token: str) -> Call:
    from threading import Event

    return Call("urn", token, "name", Event(), lambda *_: None)


def value(kind: str) -> tuple[ResourceType, Call]:
    token = f"random:index/{kind[0].lower()}{kind[1:]}:{kind}"
    return RandomProvider().resource_type(token), call(token)


@given(st.integers(4, 40), st.integers(0, 4), st.booleans())
def test_a_text_has_its_length_and_its_minimum_of_each_class(
    length: int, least: int, special: bool
) -> None:
    drawn = draw_text({"length": length, "minNumeric": least, "special": special})
    assert len(drawn) == length
    assert sum(character in string.digits for character in drawn) >= least
    if not special:
        assert drawn.isalnum()


def test_a_password_is_secret_and_another_one_each_time() -> None:
    password, its_call = value("RandomPassword")
    (_, first), (_, second) = (password.create(its_call, {"length": 20}) for _ in range(2))
    assert isinstance(first["result"], Secret)
    assert first != second


def test_every_change_draws_anew_and_no_change_keeps() -> None:
    password, its_call = value("RandomPassword")
    old = {"length": 20, "keepers": {"a": "1"}}
    new = {"length": 20, "keepers": {"a": "2"}}
    found = password.diff(its_call, "none", old, {}, new)
    assert found.replaces == {("keepers", "a")}
    assert not password.diff(its_call, "none", old, {}, dict(old)).changed


@pytest.mark.parametrize(
    ("kind", "good", "bad", "named"),
    [
        ("RandomPassword", {"length": 8}, {"length": 0}, "length"),
        ("RandomString", {"length": 8}, {"length": 8, "minLower": 9}, "length"),
        (
            "RandomString",
            {"length": 8, "special": False},
            {"length": 8, "lower": False, "upper": False, "numeric": False, "special": False},
            "lower",
        ),
        ("RandomInteger", {"min": 1, "max": 1}, {"min": 2, "max": 1}, "min"),
        ("RandomId", {"byteLength": 4}, {"byteLength": 0}, "byteLength"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_property(
    kind: str, good: dict[str, Any], bad: dict[str, Any], named: str
) -> None:
    resource, its_call = value(kind)
    assert resource.check(its_call, {}, good) == good
    with pytest.raises(CheckFailedError) as refused:
        resource.check(its_call, {}, bad)
    assert [path for path, _ in refused.value.failures] == [named]


def test_an_id_is_the_same_number_in_every_form() -> None:
    resource, its_call = value("RandomId")
    id_, outputs = resource.create(its_call, {"byteLength": 5, "prefix": "p-"})
    assert outputs["b64Url"] == f"p-{id_}"
    assert int(outputs["hex"].removeprefix("p-"), 16) == int(outputs["dec"].removeprefix("p-"))


def test_unknown_types_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedTypeError, match="randomPet:RandomPet"):
        RandomProvider().resource_type("random:index/randomPet:RandomPet")
