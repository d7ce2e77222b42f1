"""The public API as `schema.json` has it, and what a change of it means for its users.

`python -m tests.package.public_api` accepts the API as it is now: `make schema`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.stacks import ROOT
from voicemesh import package

SCHEMA_FILE = ROOT / "schema.json"


@dataclass(frozen=True)
class Property:
    """An argument, or an output, of a component or of a type that it takes."""

    type: str
    is_required: bool
    description: str

    def __str__(self) -> str:
        return f"{self.type}, {'required' if self.is_required else 'optional'}"


@dataclass(frozen=True)
class Change:
    """One difference between two versions of the API."""

    text: str
    is_breaking: bool

    def __str__(self) -> str:
        return f"{'breaks users' if self.is_breaking else 'compatible'}: {self.text}"


def as_text(schema: Mapping[str, Any]) -> str:
    """A schema as it is committed."""
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What differs between two schemas, for people who use the components."""
    found = [
        *_changes_of(_arguments(old), _arguments(new), "argument"),
        *_changes_of(_outputs(old), _outputs(new), "output"),
        *_changes_of(_members(old), _members(new), "value"),
    ]
    if old["version"] != new["version"]:
        found.append(Change(f"version {old['version']} is now {new['version']}", False))
    return found


def _changes_of(
    old: Mapping[str, Property], new: Mapping[str, Property], kind: str
) -> list[Change]:
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is None and after is not None:
            # Whoever calls a new component or type has to give what it requires; whoever calls
            # one that exists gives nothing yet.
            is_known = any(other.split(".")[0] == path.split(".")[0] for other in old)
            breaks = kind == "argument" and after.is_required and is_known
            found.append(Change(f"new {kind} {path} ({after})", breaks))
        elif after is None and before is not None:
            found.append(Change(f"{kind} {path} is gone", True))
        elif before is not None and after is not None:
            found += _changes_between(f"{kind} {path}", before, after, kind)
    return found


def _changes_between(path: str, before: Property, after: Property, kind: str) -> list[Change]:
    if before.type != after.type:
        return [Change(f"{path} was {before.type} and is {after.type}", True)]
    if before.is_required != after.is_required:
        # Arguments must not ask for more, outputs must not promise less.
        breaks = after.is_required if kind == "argument" else before.is_required
        was, now = ("required", "optional") if before.is_required else ("optional", "required")
        return [Change(f"{path} was {was} and is {now}", breaks)]
    if before.description != after.description:
        return [Change(f"{path} is described otherwise, its default included", False)]
    return []


def _arguments(schema: Mapping[str, Any]) -> dict[str, Property]:
    found = {}
    for token, resource in schema["resources"].items():
        properties, required = resource["inputProperties"], resource["requiredInputs"]
        found |= _properties(token, properties, required)
    for token, type_ in schema["types"].items():
        found |= _properties(token, type_.get("properties", {}), type_.get("required", []))
    return found


def _outputs(schema: Mapping[str, Any]) -> dict[str, Property]:
    found = {}
    for token, resource in schema["resources"].items():
        found |= _properties(token, resource["properties"], resource["required"])
    return found


def _members(schema: Mapping[str, Any]) -> dict[str, Property]:
    return {
        f"{_name(token)}.{member['name']}": Property(
            repr(member["value"]), False, member.get("description") or ""
        )
        for token, type_ in schema["types"].items()
        for member in type_.get("enum", [])
    }


def _properties(
    token: str, properties: Mapping[str, Any], required: list[str]
) -> dict[str, Property]:
    return {
        f"{_name(token)}.{name}": Property(
            _type(described), name in required, described.get("description", "")
        )
        for name, described in properties.items()
    }


def _type(described: Mapping[str, Any]) -> str:
    plain = "" if described.get("plain") else "input of "
    if "$ref" in described:
        return plain + _name(described["$ref"])
    if described["type"] == "array":
        return f"{plain}list of {_type(described['items'])}"
    if "additionalProperties" in described:
        return f"{plain}map of {_type(described['additionalProperties'])}"
    return plain + described["type"]


def _name(token: str) -> str:
    return token.rpartition(":")[2]


def accept() -> None:
    """Writes the schema of the API as it is, and prints what is new."""
    new = package.schema()
    old = json.loads(SCHEMA_FILE.read_text()) if SCHEMA_FILE.exists() else new
    print(*changes(old, new) or ["the public API is unchanged"], sep="\n")
    SCHEMA_FILE.write_text(as_text(new))


if __name__ == "__main__":
    accept()
