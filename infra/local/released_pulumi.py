"""Which Pulumi runs the stack: a released one with its plugins, or ours with the adapters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROVIDERS = ("aws", "kubernetes", "random")
"""The providers of which the stack has resources."""

_LANGUAGE_HOST = "pulumi-language-python"


@dataclass(frozen=True)
class PulumiCommand:
    """How to start Pulumi.

    Attributes:
        argv: the command, to which arguments are added.
        environment: variables that it needs; they go over those that a caller sets.
        is_released: whether it is a released Pulumi, which runs without the adapters.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    is_released: bool


def choose_pulumi(environment: Mapping[str, str], built: Path, adapters: Path) -> PulumiCommand:
    """The released Pulumi if it is installed with all its plugins, else the built one.

    Args:
        environment: the user's variables, of which PATH and PULUMI_HOME count.
        built: the Pulumi that the environment compiles for itself.
        adapters: the folder of executables that stand in for the released plugins.
    """
    path = environment.get("PATH", "")
    home = Path(environment.get("PULUMI_HOME") or Path(environment.get("HOME", "/")) / ".pulumi")
    released = _released_pulumi(path, home)
    if released is None:
        searched = os.pathsep.join((str(adapters), path))
        return PulumiCommand((str(built),), {"PATH": searched}, is_released=False)
    # The plugins are in its home.
    return PulumiCommand((str(released),), {"PULUMI_HOME": str(home)}, is_released=True)


def _released_pulumi(path: str, home: Path) -> Path | None:
    command = shutil.which("pulumi", path=path)
    if command is None:
        return None
    folder = Path(command).resolve().parent
    searched = os.pathsep.join((str(folder), path))
    has_language = shutil.which(_LANGUAGE_HOST, path=searched) is not None
    if has_language and all(_has_provider(name, searched, home) for name in PROVIDERS):
        return Path(command)
    return None


def _has_provider(name: str, path: str, home: Path) -> bool:
    """Whether a provider's plugin is on PATH or where `pulumi plugin install` puts it."""
    program = f"pulumi-resource-{name}"
    if shutil.which(program, path=path):
        return True
    installed = (home / "plugins").glob(f"resource-{name}-v*/{program}")
    return any(os.access(plugin, os.X_OK) for plugin in installed)
