"""Writes the tables of fields in `voicemesh_policies/data/` anew:

    python policies/generate_schemas.py CHARTS/base/files/crd-all.gen.yaml ISTIO_VERSION

The first table has what Istio's resource definitions say of their specs; the second one has the
messages of Envoy's API, from the descriptors in `xds-protos`, which has to be installed (its
licence is Apache-2.0, as is Istio's). The rules need neither YAML nor descriptors then.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.metadata
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parent / "voicemesh_policies" / "data"
_KEPT = {
    *("type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "minItems"),
    *("oneOf", "anyOf", "not", "x-kubernetes-int-or-string"),
    "x-kubernetes-preserve-unknown-fields",
}


def istio_table(definitions: Path, version: str) -> dict[str, Any]:
    """Schemas of specs by `group/version/Kind`."""
    kinds: dict[str, Any] = {}
    for definition in yaml.safe_load_all(definitions.read_text()):
        spec = definition["spec"]
        for served in (it for it in spec["versions"] if it["served"]):
            properties = served["schema"]["openAPIV3Schema"]["properties"]
            key = f"{spec['group']}/{served['name']}/{spec['names']['kind']}"
            kinds[key] = _compact(properties["spec"])
    return {"version": version, "kinds": kinds}


def _compact(schema: Any) -> Any:
    """Without descriptions, defaults, and the expressions that only an API server evaluates."""
    kept = {key: value for key, value in schema.items() if key in _KEPT}
    for key in ("oneOf", "anyOf"):
        if key in kept:
            kept[key] = [_compact(it) for it in kept[key]]
    if "not" in kept:
        kept["not"] = _compact(kept["not"])
    if "properties" in schema:
        kept["properties"] = {name: _compact(it) for name, it in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = _compact(schema[key])
    return kept


def envoy_table() -> dict[str, Any]:
    """Fields of each message, with the message that each holds: "" for none, and "*" before it
    where it is the value in a map."""
    for package in ("envoy", "xds", "udpa"):
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            importlib.import_module(module.name)
    messages = {}
    for descriptor in _messages(sys.modules.values()):
        messages[descriptor.full_name] = {
            name: _held(field) for field in descriptor.fields for name in _names(field)
        }
    return {"version": importlib.metadata.version("xds-protos"), "messages": messages}


def _messages(modules: Any) -> Iterator[Any]:
    for module in list(modules):
        descriptor = getattr(module, "DESCRIPTOR", None)
        for message in getattr(descriptor, "message_types_by_name", {}).values():
            yield from _with_nested(message)


def _with_nested(message: Any) -> Iterator[Any]:
    if not message.GetOptions().map_entry:
        yield message
    for nested in message.nested_types:
        yield from _with_nested(nested)


def _names(field: Any) -> set[str]:
    return {field.name, field.json_name}


def _held(field: Any) -> str:
    if field.message_type is None:
        return ""
    if field.message_type.GetOptions().map_entry:
        return f"*{_held(field.message_type.fields_by_name['value'])}"
    return field.message_type.full_name


def main() -> None:
    definitions, version = sys.argv[1:]
    _write("istio", istio_table(Path(definitions), version))
    _write("envoy", envoy_table())


def _write(name: str, table: dict[str, Any]) -> None:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    path = DATA / f"{name}.json.gz"
    # No time in it: the same table is the same file.
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path.name}: {len(text)} characters, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
