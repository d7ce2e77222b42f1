"""`aws.iam.get_policy_document`: an IAM policy as JSON, from Pulumi's own words for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from infra.local.adapters.property_values import Properties
from infra.local.adapters.provider_base import CheckFailedError

_LISTS = {
    "actions": "Action",
    "notActions": "NotAction",
    "resources": "Resource",
    "notResources": "NotResource",
}
_PRINCIPALS = {"principals": "Principal", "notPrincipals": "NotPrincipal"}
_STATEMENT = frozenset({*_LISTS, *_PRINCIPALS, "sid", "effect", "conditions"})
_ARGUMENTS = frozenset({"statements", "version", "policyId"})


def policy_document(arguments: Properties) -> Properties:
    """The function's result.

    Raises:
        CheckFailedError: an argument is not supported (merging documents is not).
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    _refuse_unknown("", given, _ARGUMENTS)
    version = given.get("version", "2012-10-17")
    identity = {"Id": given["policyId"]} if "policyId" in given else {}
    statements = [_statement(i, s) for i, s in enumerate(given.get("statements", []))]
    document = {"Version": version, **identity, "Statement": statements}
    minified = json.dumps(document, separators=(",", ":"))
    return {
        **given,
        "version": version,
        "json": json.dumps(document, indent=2),
        "minifiedJson": minified,
        "id": hashlib.sha256(minified.encode()).hexdigest()[:10],
    }


def _statement(index: int, given: Properties) -> Properties:
    given = {name: value for name, value in given.items() if value is not None}
    _refuse_unknown(f"statements[{index}].", given, _STATEMENT)
    statement: Properties = {"Sid": given["sid"]} if given.get("sid") else {}
    statement["Effect"] = given.get("effect", "Allow")
    statement |= {aws: _collapsed(given[name]) for name, aws in _LISTS.items() if given.get(name)}
    statement |= {
        aws: _principals(given[name]) for name, aws in _PRINCIPALS.items() if given.get(name)
    }
    if given.get("conditions"):
        statement["Condition"] = _conditions(given["conditions"])
    return statement


def _principals(listed: Iterable[Properties]) -> Any:
    merged: dict[str, list[str]] = {}
    for principal in listed:
        merged.setdefault(principal["type"], []).extend(principal["identifiers"])
    return "*" if merged == {"*": ["*"]} else {k: _collapsed(v) for k, v in merged.items()}


def _conditions(listed: Iterable[Properties]) -> Properties:
    merged: dict[str, dict[str, list[str]]] = {}
    for condition in listed:
        values = merged.setdefault(condition["test"], {}).setdefault(condition["variable"], [])
        values.extend(condition["values"])
    return {t: {k: _collapsed(v) for k, v in keys.items()} for t, keys in merged.items()}


def _collapsed(values: list[str]) -> Any:
    """One value is written without a list."""
    return values[0] if len(values) == 1 else values


def _refuse_unknown(where: str, given: Properties, known: frozenset[str]) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        reason = "is not supported by the embedded environment's aws provider"
        raise CheckFailedError([(f"{where}{name}", reason) for name in unknown])
