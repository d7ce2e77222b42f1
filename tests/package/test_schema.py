"""`schema.json` is the public API: whatever changes it is seen, and accepted on purpose."""

from __future__ import annotations

import json
import tomllib
from copy import deepcopy
from typing import Any

import pytest

import voicemesh
from tests.package import public_api
from tests.stacks import ROOT
from voicemesh import package

VOICE = "voicemesh:index:TtsVoiceService"
VARIANT = "voicemesh:index:VoiceVariant"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return package.schema()


def test_the_committed_schema_is_that_of_the_code(schema: dict[str, Any]) -> None:
    committed = public_api.SCHEMA_FILE.read_text()
    if committed != public_api.as_text(schema):
        differences = public_api.changes(json.loads(committed), schema)
        pytest.fail(
            "\n".join(
                [
                    "the public API differs from schema.json:",
                    *map(str, differences),
                    "accept it with `make schema`; docs/upgrading.md says which version it needs",
                ]
            ),
            pytrace=False,
        )


def test_the_schema_has_every_component_and_the_version_of_the_wheel(
    schema: dict[str, Any],
) -> None:
    names = {token.rpartition(":")[2] for token in schema["resources"]}
    assert names == {component.__name__ for component in package.components()}
    assert names >= {"GpuCluster", "IstioMesh", "TtsVoiceService", "VoiceStorage"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert schema["version"] == project["version"]


def test_every_argument_output_and_value_is_described(schema: dict[str, Any]) -> None:
    parts = [
        *public_api._arguments(schema).items(),
        *public_api._outputs(schema).items(),
        *public_api._members(schema).items(),
    ]
    # What names itself needs no words: NODE_PORT of ServiceType.
    named = {path for path, part in parts if part.type.startswith("'")}
    assert [path for path, part in parts if not part.description and path not in named] == []


def test_descriptions_name_arguments_as_other_languages_do(schema: dict[str, Any]) -> None:
    names = package._wire_names()
    text = public_api.as_text(schema)
    assert [name for name in names if f"`{name}`" in text or f".{name}`" in text] == []


def test_what_has_a_default_may_be_left_out(schema: dict[str, Any]) -> None:
    assert schema["resources"][VOICE]["requiredInputs"] == ["namespace", "variants"]
    assert schema["types"][VARIANT]["required"] == ["image", "name", "version"]
    described = schema["types"][VARIANT]["properties"]["accelerator"]["description"]
    assert described.endswith('Default: "h100".\n"" stands for None.')


def _changed(schema: dict[str, Any], edit: Any) -> list[str]:
    new = deepcopy(schema)
    edit(new)
    return [str(change) for change in public_api.changes(schema, new)]


def test_an_unchanged_api_has_no_changes(schema: dict[str, Any]) -> None:
    assert _changed(schema, lambda new: None) == []


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            lambda new: new["resources"][VOICE]["inputProperties"].pop("hosts"),
            "breaks users: argument TtsVoiceService.hosts is gone",
        ),
        (
            lambda new: new["resources"][VOICE]["requiredInputs"].append("hosts"),
            "breaks users: argument TtsVoiceService.hosts was optional and is required",
        ),
        (
            lambda new: new["types"][VARIANT]["required"].remove("version"),
            "compatible: argument VoiceVariant.version was required and is optional",
        ),
        (
            lambda new: new["types"][VARIANT]["properties"]["weight"].update(type="number"),
            "breaks users: argument VoiceVariant.weight was integer and is number",
        ),
        (
            lambda new: new["types"][VARIANT]["properties"]["image"].update(plain=True),
            "breaks users: argument VoiceVariant.image was input of string and is string",
        ),
        (
            lambda new: new["types"][VARIANT]["properties"].update(
                pitch={"type": "number", "plain": True}
            ),
            "compatible: new argument VoiceVariant.pitch (number, optional)",
        ),
        (
            lambda new: new["resources"][VOICE]["properties"].pop("urls"),
            "breaks users: output TtsVoiceService.urls is gone",
        ),
        (
            lambda new: new["resources"][VOICE]["required"].remove("urls"),
            "breaks users: output TtsVoiceService.urls was required and is optional",
        ),
        (
            lambda new: new["types"]["voicemesh:index:ServiceType"]["enum"].pop(),
            "breaks users: value ServiceType.NODE_PORT is gone",
        ),
        (
            lambda new: new["types"][VARIANT]["properties"]["weight"].update(
                description="Share.\nDefault: 50."
            ),
            "compatible: argument VoiceVariant.weight is described otherwise, its default included",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_says_what_it_does_to_users(
    schema: dict[str, Any], edit: Any, expected: str
) -> None:
    assert _changed(schema, edit) == [expected]


def test_a_new_required_argument_breaks_users_of_a_component_and_not_of_a_new_one(
    schema: dict[str, Any],
) -> None:
    def ask_for_more(new: dict[str, Any]) -> None:
        new["types"][VARIANT]["properties"]["pitch"] = {"type": "number", "plain": True}
        new["types"][VARIANT]["required"].append("pitch")
        new["types"]["voicemesh:index:Choir"] = {
            "properties": {"size": {"type": "integer", "plain": True}},
            "required": ["size"],
        }

    assert _changed(schema, ask_for_more) == [
        "compatible: new argument Choir.size (integer, required)",
        "breaks users: new argument VoiceVariant.pitch (number, required)",
    ]


def test_all_exported_components_are_found_by_their_classes() -> None:
    exported = [getattr(voicemesh, name) for name in voicemesh.__all__]
    assert all(component in exported for component in package.components())
