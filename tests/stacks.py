"""Configurations of stacks as the engine would pass them, for tests without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from voicemesh.testing import SecretValue

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "voicemesh"
STACKS: Final = ("local", "dev", "staging", "prod-cluster", "prod")
"""Those that refer to others come after them."""
CLUSTER_OF: Final = {"prod": "prod-cluster"}
"""Stacks that run on another one's cluster."""
CERTIFICATE = "-----BEGIN CERTIFICATE-----\ncertificate\n-----END CERTIFICATE-----\n"
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
SECRET_KEY = "secret-access-key"
ENCRYPTED: Final = frozenset({"gateway", "aws"})
"""Keys of the stack `local` in which `up` encrypts something."""


def local_values() -> dict[str, Any]:
    """The configuration of the stack `local` by top-level key, with what `up` adds to it."""
    values = stack_values("local")
    for host in values["gateway"]["hosts"]:
        host |= {"certificate": CERTIFICATE, "privateKey": PRIVATE_KEY}
    values["aws"] |= {"accessKey": "access", "secretKey": SECRET_KEY}
    return values


def stack_values(stack: str) -> dict[str, Any]:
    """What is committed of a stack's configuration, by top-level key."""
    return deepcopy(_committed(stack))


def as_engine_config(values: Mapping[str, Any], encrypted: frozenset[str]) -> dict[str, Any]:
    """A configuration as `voicemesh.testing.record` takes it."""
    return {key: SecretValue(v) if key in encrypted else v for key, v in values.items()}


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


def many_services(services: int, tenants: int) -> dict[str, Any]:
    """The configuration of `staging` with that many voices, shared out among that many tenants."""
    values = stack_values("staging")
    tenant, voice = values["tenants"][0], values["voices"][0]
    names = [f"tenant-{number:02}" for number in range(tenants)]
    voices = [
        {
            **voice,
            "name": f"voice-{number:02}",
            "tenant": names[number % tenants],
            "hosts": [f"voice-{number:02}.example.com"],
        }
        for number in range(services)
    ]
    each = -(-services // tenants)
    quota = {key: value * each for key, value in tenant["quota"].items() if key != "gpus"}
    gpus = {name: count * each for name, count in tenant["quota"]["gpus"].items()}
    return {
        **values,
        "tenants": [{**tenant, "name": name, "quota": {**quota, "gpus": gpus}} for name in names],
        "voices": voices,
        "gateway": {
            **values["gateway"],
            "hosts": [
                {"name": host, "tenant": voice["tenant"], "secretName": host.replace(".", "-")}
                for voice in voices
                for host in voice["hosts"]
            ],
        },
        "eks": changed(values["eks"], "nodeGroups", 0, "maxSize", to=4 * services),
    }
