"""What somebody else changed in an object that Pulumi made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MERGE_KEYS = ("name", "containerPort", "port", "mountPath", "devicePath", "ip", "key", "uid")
_MISSING = object()


def drifted_inputs(inputs: Any, applied: Any, live: Any) -> Any:
    """The inputs that describe the live object.

    Applying the inputs once more (as a dry run) gives `applied`. Where that equals the live
    object, nothing that Pulumi owns was changed, however differently the server may write it:
    the inputs stay. Where it does not, the live value takes the input's place.
    """
    if applied == live:
        return inputs
    if isinstance(inputs, dict) and isinstance(applied, dict) and isinstance(live, dict):
        result = {}
        for key, value in inputs.items():
            if key not in applied:
                result[key] = value
            elif key in live:
                result[key] = drifted_inputs(value, applied[key], live[key])
        return result
    if isinstance(inputs, list) and isinstance(applied, list) and isinstance(live, list):
        return _drifted_items(inputs, applied, live)
    return live


def _drifted_items(inputs: list[Any], applied: list[Any], live: list[Any]) -> list[Any]:
    result = []
    for index, value in enumerate(inputs):
        expected, found = _partner(value, applied, index), _partner(value, live, index)
        if expected is _MISSING:
            result.append(value)
        elif found is not _MISSING:
            result.append(drifted_inputs(value, expected, found))
    return result


def _partner(item: Any, others: Sequence[Any], index: int) -> Any:
    """The item of the other list that means the same: by merge key, else by place."""
    if isinstance(item, dict):
        for key in _MERGE_KEYS:
            if key in item:
                matches = (o for o in others if isinstance(o, dict) and o.get(key) == item[key])
                return next(matches, _MISSING)
    return others[index] if index < len(others) else _MISSING
