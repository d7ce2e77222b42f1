"""Which fields Istio's resources and Envoy's messages have: tables made by `generate_schemas.py`.

Istio drops fields that it does not know without a word, where the API server does not do so before;
what is in an EnvoyFilter is not even looked at.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from voicemesh_policies.view import UNKNOWN, Finding, UnknownError, View

_OPEN: Final = "x-kubernetes-preserve-unknown-fields"
_DEEPEST: Final = 48
_TYPE_PREFIX: Final = "type.googleapis.com/"
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (Mapping,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
}
_NOT_MESSAGES: Final = (
    *("google.protobuf.", "xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"),
    *("istio.", "stats."),
)
"""Messages that may hold anything: `Struct`, `Any` without a type, durations, wrapped values; and
those of Istio's own filters, which are not in Envoy's API."""


@cache
def _table(name: str) -> Any:
    data = resources.files("voicemesh_policies") / "data" / f"{name}.json.gz"
    return json.loads(gzip.decompress(data.read_bytes()))


def istio_version() -> str:
    """Of Istio, whose resource definitions the table is made from."""
    return _table("istio")["version"]


def served_versions(group: str, kind: str) -> list[str]:
    """Versions in which Istio has a kind."""
    found = (key.split("/") for key in _table("istio")["kinds"])
    return sorted(version for its, version, name in found if (its, name) == (group, kind))


def schema(group: str, version: str, kind: str) -> Any:
    """Schema of the spec of a kind; None where Istio has none in this version."""
    return _table("istio")["kinds"].get(f"{group}/{version}/{kind}")


def unknown_fields(view: View, schema: Any, depth: int = 0) -> Iterator[Finding]:
    """Fields in a spec that its schema does not have."""
    if depth > _DEEPEST or schema.get(_OPEN):
        return
    if view.value is UNKNOWN:
        if schema.get("type") in ("object", "array"):
            raise UnknownError(view.path)
        return
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for key, entry in view.entries if schema.get("type") == "object" else []:
        if key in properties:
            yield from unknown_fields(entry, properties[key], depth + 1)
        elif others:
            yield from unknown_fields(entry, others, depth + 1)
        elif properties:
            yield entry.wrong(f"is a field that Istio {istio_version()} does not have here")
    for entry in view.items if "items" in schema else []:
        yield from unknown_fields(entry, schema["items"], depth + 1)


def wrong_values(view: View, schema: Any, depth: int = 0) -> Iterator[Finding]:
    """Values in a spec that its schema does not allow, or misses; unknown fields aside."""
    if depth > _DEEPEST:
        return
    if view.value is UNKNOWN:
        # A text that may be any text can be judged without being known.
        if schema.get("type") != "string" or "enum" in schema or "pattern" in schema:
            raise UnknownError(view.path)
        return
    if problem := _mistyped(view.value, schema) or _out_of_bounds(view.value, schema):
        yield view.wrong(problem)
        return
    if not _allowed(view.value, schema):
        yield view.wrong("has fields that exclude one another, or lacks one of a choice")
    for key in schema.get("required", []):
        if not isinstance(view.value, Mapping) or view.value.get(key) is None:
            yield view[key].wrong("is required")
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    for key, entry in view.entries:
        if entry.value is not None:
            yield from wrong_values(entry, properties.get(key, others or {}), depth + 1)
    for entry in view.items:
        yield from wrong_values(entry, schema.get("items", {}), depth + 1)


def _mistyped(value: Any, schema: Any) -> str:
    if not (wanted := schema.get("type")) or schema.get("x-kubernetes-int-or-string"):
        return ""
    is_flag = isinstance(value, bool)
    fits = isinstance(value, _TYPES[wanted]) and (not is_flag or wanted == "boolean")
    if fits and wanted == "integer" and isinstance(value, float):
        fits = value.is_integer()
    return "" if fits else f"must be of type {wanted}"


def _out_of_bounds(value: Any, schema: Any) -> str:
    if "enum" in schema and value not in schema["enum"]:
        return f"must be one of {', '.join(map(str, schema['enum'])) or 'nothing'}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return "" if least <= value <= most else f"must be from {least} to {most}"
    size = len(value) if isinstance(value, (str, list)) else math.inf
    if size < max(schema.get("minLength", 0), schema.get("minItems", 0)):
        return "must not be empty"
    if isinstance(value, str) and "pattern" in schema and len(value) < 1024:
        return "" if re.search(schema["pattern"], value) else f"must match {schema['pattern']}"
    return ""


def _allowed(value: Any, schema: Any) -> bool:
    """Whether the choices of a schema hold: they ask only which fields are there."""
    if "oneOf" in schema and sum(_chosen(value, it) for it in schema["oneOf"]) != 1:
        return False
    return "anyOf" not in schema or any(_chosen(value, it) for it in schema["anyOf"])


def _chosen(value: Any, choice: Any) -> bool:
    there = {key for key, entry in value.items() if entry is not None} if _is_map(value) else set()
    if not there.issuperset(choice.get("required", [])):
        return False
    if "not" in choice and _chosen(value, choice["not"]):
        return False
    return _allowed(value, choice)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


PATCHED: Final[Mapping[str, str]] = {
    "BOOTSTRAP": "envoy.config.bootstrap.v3.Bootstrap",
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "EXTENSION_CONFIG": "envoy.config.core.v3.TypedExtensionConfig",
    "FILTER_CHAIN": "envoy.config.listener.v3.FilterChain",
    "HTTP_FILTER": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "HTTP_ROUTE": "envoy.config.route.v3.Route",
    "LISTENER": "envoy.config.listener.v3.Listener",
    "LISTENER_FILTER": "envoy.config.listener.v3.ListenerFilter",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "ROUTE_CONFIGURATION": "envoy.config.route.v3.RouteConfiguration",
    "VIRTUAL_HOST": "envoy.config.route.v3.VirtualHost",
}
"""The message that each `applyTo` changes."""


def unknown_envoy_fields(view: View, message: str, depth: int = 0) -> Iterator[Finding]:
    """Fields that a message of Envoy, written as JSON, does not have."""
    if depth > _DEEPEST:
        return
    if named := view["@type"].text if _is_map(view.value) else "":
        message = named.removeprefix(_TYPE_PREFIX)
    if not message or message.startswith(_NOT_MESSAGES):
        return
    if view.value is UNKNOWN:
        raise UnknownError(view.path)
    if (fields := _table("envoy")["messages"].get(message)) is None:
        yield view["@type"].wrong("is a message that Envoy does not have")
        return
    for key, entry in view.entries:
        if key == "@type":
            continue
        if (held := fields.get(key)) is None:
            yield entry.wrong(f"is a field that Envoy's {message.rpartition('.')[2]} does not have")
        elif held.startswith("*"):
            for _, value in entry.entries:
                yield from unknown_envoy_fields(value, held[1:], depth + 1)
        else:
            for value in [entry, *entry.items] if held else []:
                if _is_map(value.value) or value.value is UNKNOWN:
                    yield from unknown_envoy_fields(value, held, depth + 1)
