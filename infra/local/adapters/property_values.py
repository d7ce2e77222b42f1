"""Pulumi property values: how they travel in protobuf Structs, and what is asked of them.

In Python a property value is None, bool, int, float, str, list, dict, `UNKNOWN` or `Secret`.
Assets, archives and resource references stay the dicts in which they travel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from google.protobuf import struct_pb2

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a type tag of the protocol)
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_UNKNOWN_TOKENS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
_UNKNOWN_TOKEN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # noqa: S105 (a type tag of the protocol)
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")

Properties = dict[str, Any]


class _Unknown:
    """The value that only a later step of the update will know."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, memo: object) -> _Unknown:
        return self


UNKNOWN: Final = _Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that must never be shown; its `repr` does not show it either."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """The properties in a Struct; whole floats become ints, since protobuf knows only doubles."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def to_struct(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    """The Struct that carries the properties, secrets and unknowns included."""
    return struct_pb2.Struct(fields={key: _to_value(value) for key, value in properties.items()})


def _from_value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return UNKNOWN if value.string_value in _UNKNOWN_TOKENS else value.string_value
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
        case "struct_value":
            return _from_object(value.struct_value)
        case _:
            return None


def _number(value: float) -> int | float:
    return int(value) if math.isfinite(value) and value == math.floor(value) else value


def _from_object(struct: struct_pb2.Struct) -> Any:
    properties = from_struct(struct)
    signature = properties.get(_SIGNATURE)
    if signature == _SECRET:
        return Secret(properties.get("value"))
    if signature == _OUTPUT:
        value = properties.get("value", UNKNOWN)
        return Secret(value) if properties.get("secret") else value
    return properties


def _to_value(value: Any) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NullValue.NULL_VALUE)
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=_UNKNOWN_TOKEN)
    if isinstance(value, Secret):
        return _to_value({_SIGNATURE: _SECRET, "value": value.value})
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return struct_pb2.Value(number_value=float(value))
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, Mapping):
        return struct_pb2.Value(struct_value=to_struct(value))
    if isinstance(value, (list, tuple)):
        items = struct_pb2.ListValue(values=[_to_value(item) for item in value])
        return struct_pb2.Value(list_value=items)
    raise TypeError(f"a property cannot hold a {type(value).__name__}")


def plain(value: Any) -> Any:
    """The value with every `Secret` opened; unknowns stay."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    """Whether any part of the value is unknown."""
    return any(leaf is UNKNOWN for leaf in _leaves(value))


def without_unknown(value: Any) -> Any:
    """The value with unknown object members and list items left out."""
    if isinstance(value, Secret):
        return Secret(without_unknown(value.value))
    if isinstance(value, dict):
        return {k: without_unknown(v) for k, v in value.items() if not _is_unknown(v)}
    if isinstance(value, list):
        return [without_unknown(item) for item in value if not _is_unknown(item)]
    return value


def secret_strings(value: Any) -> frozenset[str]:
    """Every text inside a `Secret`, so that messages can be cleared of them."""
    return frozenset(_secret_strings(value, inside=False))


def with_secrets_of(outputs: Any, inputs: Any) -> Any:
    """The outputs, secret wherever the inputs at the same place are.

    A list with any secret item makes the whole list secret: its order may differ.
    """
    if isinstance(outputs, Secret):
        return outputs
    if isinstance(inputs, dict) and isinstance(outputs, dict):
        return {
            key: with_secrets_of(item, inputs[key]) if key in inputs else item
            for key, item in outputs.items()
        }
    if _has_secret(inputs):
        return Secret(plain(outputs))
    return outputs


class Change(StrEnum):
    """What happened to one property between two versions of an object."""

    ADD = "ADD"
    DELETE = "DELETE"
    UPDATE = "UPDATE"


Path = tuple[str | int, ...]


def changes(old: Any, new: Any) -> dict[Path, Change]:
    """The smallest paths at which two values differ; secrets compare by what they hold."""
    return dict(_changes(plain(old), plain(new), ()))


def path_text(path: Path) -> str:
    """The path as Pulumi writes it: `spec.ports[0].name`, `metadata.labels["app.io/x"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            escaped = part.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def _changes(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Change]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in new:
                yield (*path, key), Change.DELETE
            elif key not in old:
                yield (*path, key), Change.ADD
            else:
                yield from _changes(old[key], new[key], (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            if index >= len(new):
                yield (*path, index), Change.DELETE
            elif index >= len(old):
                yield (*path, index), Change.ADD
            else:
                yield from _changes(old[index], new[index], (*path, index))
    elif (old is not new and (type(old) is bool) != (type(new) is bool)) or old != new:
        yield path, Change.UPDATE


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Secret):
        yield from _leaves(value.value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _is_unknown(value: Any) -> bool:
    return value is UNKNOWN or (isinstance(value, Secret) and value.value is UNKNOWN)


def _has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_secret(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_secret(item) for item in value)
    return isinstance(value, Secret)


def _secret_strings(value: Any, *, inside: bool) -> Iterator[str]:
    if isinstance(value, Secret):
        yield from _secret_strings(value.value, inside=True)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _secret_strings(item, inside=inside)
    elif isinstance(value, list):
        for item in value:
            yield from _secret_strings(item, inside=inside)
    elif inside and isinstance(value, str):
        yield value
