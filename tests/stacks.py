"""Configurations of stacks as the engine would pass them, for tests without an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "voicemesh"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\ncertificate\n-----END CERTIFICATE-----\n"
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
SECRET_KEY = "secret-access-key"


def local_values() -> dict[str, Any]:
    """The configuration of the stack `local` by top-level key, with what `up` adds to it."""
    values = deepcopy(_committed("local"))
    for host in values["gateway"]["hosts"]:
        host |= {"certificate": CERTIFICATE, "privateKey": PRIVATE_KEY}
    values["aws"] |= {"accessKey": "access", "secretKey": SECRET_KEY}
    return values


def as_engine_config(values: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as the engine hands it to a program: by full key, objects as JSON."""
    return {f"{PROJECT}:{key}": json.dumps(value) for key, value in values.items()}


def changed(values: Mapping[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy in which one value is another, or is there in addition."""
    copy: Any = deepcopy(dict(values))
    target = copy
    for part in path[:-1]:
        target = target[part]
    if path[-1] == "+":
        target.append(to)
    else:
        target[path[-1]] = to
    return copy


def without(values: Mapping[str, Any], *path: str | int) -> dict[str, Any]:
    """A copy in which one key is missing."""
    copy: Any = deepcopy(dict(values))
    target = copy
    for part in path[:-1]:
        target = target[part]
    del target[path[-1]]
    return copy


@cache
def _committed(stack: str) -> dict[str, Any]:
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    prefix = f"{PROJECT}:"
    return {key.removeprefix(prefix): v for key, v in config.items() if key.startswith(prefix)}
