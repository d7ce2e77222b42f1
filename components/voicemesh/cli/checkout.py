"""The typed configuration of a stack, read from the checkout that the command runs in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from voicemesh.cli.errors import UsageError

if TYPE_CHECKING:
    from infra.environment import Environment

_ENCRYPTED = "secure"
_MASK = "-----BEGIN (encrypted)-----"
"""In place of what is encrypted; a private key is refused if it is not PEM."""


def load_stack(stack: str, directory: Path) -> Environment:
    """The environment that `Pulumi.<stack>.yaml` describes. What is encrypted in it stays so.

    Raises:
        UsageError: this is no checkout, there is no such stack, or its configuration is faulty.
    """
    project = directory / "Pulumi.yaml"
    if not project.is_file() or not (directory / "infra").is_dir():
        raise UsageError(
            f"{directory} is no checkout of voicemesh: run this where Pulumi.yaml and infra/ are"
        )
    file = directory / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = sorted(path.suffixes[0][1:] for path in directory.glob("Pulumi.*.yaml"))
        raise UsageError(f"there is no stack {stack!r} here; there are {', '.join(known)}")
    prefix = f"{_mapping(project)['name']}:"
    config = _mapping(file).get("config") or {}
    values = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return _load(values, directory)


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{file.name} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file.name} has no keys, but is {content!r}")
    return content


def _load(values: dict[str, Any], directory: Path) -> Environment:
    sys.path.insert(0, str(directory))
    try:
        from infra.environment import FaultyEnvironmentError, load
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the checkout needs {missing.name}: pip install 'voicemesh[infra]'"
        ) from None
    encrypted = {key for key, value in values.items() if _has_encrypted(value)}
    try:
        return load({key: _masked(value) for key, value in values.items()}, encrypted)
    except FaultyEnvironmentError as faulty:
        raise UsageError(str(faulty)) from None


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ENCRYPTED}:
            return _MASK
        return {key: _masked(entry) for key, entry in value.items()}
    return [_masked(entry) for entry in value] if isinstance(value, list) else value


def _has_encrypted(value: Any) -> bool:
    return _masked(value) != value
