"""The wheel, built from the checkout and installed where nothing of the checkout is found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from infra.local.paths import CACHE
from tests.stacks import ROOT


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel in it."""

    python: Path
    with_dependencies: bool
    """Whether the wheel brought its dependencies with it. If not, the package index was out of
    reach, and they are those of this Python, without what it has of the checkout."""

    def run(
        self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs its Python, isolated from the checkout and from the user's settings."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=cwd,
            env={**_clean_environment(), **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )


def build_wheel(folder: Path, project: Path = ROOT) -> Path:
    """Builds a project's wheel as `pip wheel` would, with the build backend that is installed."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        capture_output=True,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path | str, folder: Path, *others: Path) -> Installation:
    """Installs wheels, in the versions of `requirements.lock`, in a new virtual environment.

    From the index or, where that is out of reach, from what was installed from it before.
    """
    _uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    versions = folder / "versions.txt"
    versions.write_text("\n".join(locked_versions()))
    target = ("--python", str(python))
    wheels = (str(wheel), *map(str, others))
    wanted = (*target, "--constraint", str(versions), *wheels)
    for network in ((), ("--offline",)):
        if _succeeds("pip", "install", *network, *wanted):
            return Installation(python, with_dependencies=True)
    _uv("pip", "install", *target, "--offline", "--no-deps", *wheels)
    (site,) = (folder / "lib").glob("python*/site-packages")
    # Python reads no .pth files in a folder that a .pth file names: not that of the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installation(python, with_dependencies=False)


def locked_versions() -> list[str]:
    """All requirements of `requirements.lock`, as `name==version`."""
    lock = (ROOT / "requirements.lock").read_text()
    return re.findall(r"^[\w.\[\],-]+==[\w.!+]+", lock, re.MULTILINE)


def _uv(*arguments: str) -> None:
    subprocess.run(_command(*arguments), env=_environment(), capture_output=True, check=True)


def _succeeds(*arguments: str) -> bool:
    done = subprocess.run(
        _command(*arguments), env=_environment(), capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uv", "--quiet", "--no-config", *arguments]


def _environment() -> dict[str, str]:
    # A cache beside that of the tools, so that CI keeps one folder; and no waiting for an index
    # that is out of reach.
    return {
        **os.environ,
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "UV_HTTP_TIMEOUT": "30",
        "UV_HTTP_RETRIES": "0",
    }


def _clean_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}
