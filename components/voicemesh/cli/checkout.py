"""The typed configuration of a stack, read from the checkout that the command runs in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicemesh.cli.errors import UsageError
from voicemesh.policy.errors import ConfigurationError
from voicemesh.policy.project import Project, has_encrypted, mapping_of, masked

if TYPE_CHECKING:
    from infra.environment import Environment


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
    try:
        here = Project.at(directory)
        config = mapping_of(here.file_of(stack)).get("config") or {}
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    prefix = f"{here.name}:"
    values = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return _load(values, directory)


def _load(values: dict[str, Any], directory: Path) -> Environment:
    sys.path.insert(0, str(directory))
    try:
        from infra.environment import FaultyEnvironmentError, load
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the checkout needs {missing.name}: pip install 'voicemesh[infra]'"
        ) from None
    encrypted = {key for key, value in values.items() if has_encrypted(value)}
    try:
        return load({key: masked(value) for key, value in values.items()}, encrypted)
    except FaultyEnvironmentError as faulty:
        raise UsageError(str(faulty)) from None
