"""Property values between protobuf and Python."""

from __future__ import annotations

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from infra.local.adapters.property_values import (
    UNKNOWN,
    Change,
    Secret,
    changes,
    from_struct,
    has_unknown,
    path_text,
    plain,
    secret_strings,
    to_struct,
    with_secrets_of,
)
from infra.local.adapters.provider_base import (
    CheckFailedError,
    parse_path,
    redact,
    replaced_by,
    without_ignored,
)

SIGNATURE = "4dabf18193072939515e22adb298388d"
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
_VALUES = st.recursive(
    _SCALARS | st.just(UNKNOWN) | st.builds(Secret, _SCALARS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
)


@given(st.dictionaries(st.text(min_size=1), _VALUES))
def test_values_survive_the_wire(properties: dict[str, object]) -> None:
    assert from_struct(to_struct(properties)) == properties


def test_whole_numbers_become_integers_and_others_stay() -> None:
    struct = struct_pb2.Struct()
    json_format.ParseDict({"weight": 10.0, "share": 0.5}, struct)
    properties = from_struct(struct)
    assert properties == {"weight": 10, "share": 0.5}
    assert isinstance(properties["weight"], int)


def test_the_engines_markers_are_read() -> None:
    struct = struct_pb2.Struct()
    output = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
    json_format.ParseDict(
        {
            "secret": {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": "x"},
            "unknown": "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
            "output": {SIGNATURE: output, "value": "y", "secret": True},
            "unknown output": {SIGNATURE: output},
            "asset": {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": "z"},
        },
        struct,
    )
    read = from_struct(struct)
    assert read["secret"] == Secret("x")
    assert read["output"] == Secret("y")
    assert read["unknown"] is UNKNOWN
    assert read["unknown output"] is UNKNOWN
    assert read["asset"]["text"] == "z"


def test_a_secret_never_shows_its_value() -> None:
    assert "open-sesame" not in repr({"word": Secret("open-sesame")})


def test_outputs_are_secret_where_inputs_are() -> None:
    inputs = {"data": {"a": Secret("1"), "b": "2"}, "list": ["x", Secret("y")]}
    outputs = {"data": {"a": "1", "b": "2", "c": "3"}, "list": ["y", "x"], "other": "1"}
    assert with_secrets_of(outputs, inputs) == {
        "data": {"a": Secret("1"), "b": "2", "c": "3"},
        "list": Secret(["y", "x"]),
        "other": "1",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": Secret("x")}, {"a": "x"}, {}),
        ({"a": 1}, {"a": True}, {"a": Change.UPDATE}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a.c": Change.DELETE}),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, {"a[1]": Change.UPDATE, "a[2]": Change.ADD}),
        ({}, {"x.y/z": 1}, {'["x.y/z"]': Change.ADD}),
        ({"a": {}}, {"a": 1}, {"a": Change.UPDATE}),
    ],
)
def test_changes_name_the_smallest_paths(old: dict, new: dict, expected: dict) -> None:
    assert {path_text(path): change for path, change in changes(old, new).items()} == expected


@given(st.lists(st.text(min_size=1) | st.integers(0, 99), min_size=1))
def test_paths_can_be_written_and_read_again(path: list[str | int]) -> None:
    assert parse_path(path_text(tuple(path))) == tuple(path)


def test_a_change_below_or_above_a_forcing_path_replaces() -> None:
    changed = changes(
        {"spec": {"selector": {"app": "x"}, "replicas": 1}, "items": [{"name": "a", "size": 1}]},
        {"spec": {"selector": {"app": "y"}, "replicas": 2}, "items": [{"name": "b", "size": 2}]},
    )
    forcing = [parse_path("spec.selector"), parse_path("items[*].name")]
    assert {path_text(path) for path in replaced_by(changed, forcing)} == {
        "spec.selector.app",
        "items[0].name",
    }


def test_ignored_changes_do_not_count() -> None:
    changed = changes({"spec": {"replicas": 1, "x": 1}}, {"spec": {"replicas": 2, "x": 2}})
    assert list(without_ignored(changed, ["spec.replicas"])) == [("spec", "x")]
    assert without_ignored(changed, ["spec"]) == {}


def test_messages_are_cleared_of_secrets() -> None:
    inputs = {"a": [Secret({"b": "open-sesame"})], "c": "sesame", "d": Secret("no")}
    assert secret_strings(inputs) == {"open-sesame", "no"}
    assert redact("no value open-sesame, sesame", inputs) == "no value [secret], sesame"


def test_unknowns_are_found_at_any_depth() -> None:
    assert has_unknown({"a": [{"b": Secret(UNKNOWN)}]})
    assert not has_unknown({"a": [{"b": Secret("x")}]})
    assert plain({"a": [Secret({"b": Secret(1)})]}) == {"a": [{"b": 1}]}


def test_refused_inputs_are_told_all_at_once() -> None:
    error = CheckFailedError([("length", "is 0"), ("lower", "is false")])
    assert str(error) == "length: is 0; lower: is false"
