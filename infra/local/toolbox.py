"""The Go programs of the embedded environment, compiled once per machine.

Each tool is a Go module in `tools/`, which pins every version. A compiled tool is a folder
`CACHE/tools/<name>-<version>-<key>` that is complete or absent; the key covers everything that
decides its content, so an unchanged tool is never compiled again and needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.errors import LocalEnvironmentError
from infra.local.go_toolchain import Toolchain, find_toolchain
from infra.local.paths import CACHE
from infra.local.progress import Progress, silent
from infra.local.released_pulumi import PulumiCommand, choose_pulumi
from infra.local.tool_catalogue import NEEDED_FOR_UP, TOOLS, Build, ModuleFiles, Tool
from infra.local.versions import GO_VERSION
from infra.local.waiting import log_end

_SOURCES = Path(__file__).parent / "tools"
_ADAPTERS = Path(__file__).parent / "adapters" / "bin"
_TICK_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.2
_DOWNLOAD_SECONDS = 3.0


@dataclass(frozen=True)
class Toolbox:
    """A set of tools and where they are compiled to.

    Attributes:
        tools: the tools.
        sources: holds a Go module per tool that has none elsewhere.
        cache: gets the compiled tools in `tools/`, Go's own caches in `go/`.
        find_toolchain: gives the Go toolchain; called only when something is asked of it.
    """

    tools: tuple[Tool, ...] = TOOLS
    sources: Path = _SOURCES
    cache: Path = CACHE
    find_toolchain: Callable[[], Toolchain] = field(default=find_toolchain)

    def ensure(self, names: Sequence[str], progress: Progress = silent) -> None:
        """Compiles those of the named tools that are not there.

        Raises:
            LocalEnvironmentError: a build failed; shows the end of its log and names the log.
        """
        tools = [self._named(name) for name in names]
        missing = [tool for tool in tools if not self.folder(tool.name).is_dir()]
        if not missing:
            return
        try:
            self._build_all(missing, progress)
        except OSError as error:
            raise LocalEnvironmentError(
                f"compiling tools in {self.cache}: {error}",
                fix="make room or check the rights there, then run the same command again",
            ) from error

    def folder(self, name: str) -> Path:
        """Where a compiled tool is, or will be."""
        tool = self._named(name)
        return self.cache / "tools" / f"{tool.name}-{tool.version}-{self._key(tool)}"

    def binary(self, name: str) -> Path:
        """The path of a program.

        Raises:
            LocalEnvironmentError: its tool is not compiled yet.
        """
        path = self.path(name)
        if not path.exists():
            raise LocalEnvironmentError(f"{name} is not compiled", fix="run `make up`")
        return path

    def path(self, name: str) -> Path:
        """Where a program is, or will be."""
        for tool in self.tools:
            if name in tool.binaries:
                return self.folder(tool.name) / "bin" / name
        raise ValueError(f"name: {name!r} is no program of the tools {self._names()}")

    def _named(self, name: str) -> Tool:
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise ValueError(f"name: {name!r} is none of the tools {self._names()}")

    def _names(self) -> str:
        return ", ".join(tool.name for tool in self.tools)

    def source(self, tool: Tool) -> Path:
        """The Go module that a tool is made of."""
        return tool.source or self.sources / tool.name

    def _key(self, tool: Tool) -> str:
        source = self.source(tool)
        # The oldest Go that will do, not the one in use: another `go` on PATH is no reason to
        # compile everything again.
        digest = hashlib.sha256(f"{tool}\0{GO_VERSION}".encode())
        tested = any(build.tests for build in tool.builds)
        programs = [it for it in source.glob("*.go") if tested or not it.match("*_test.go")]
        for path in (source / "go.mod", source / "go.sum", *sorted(programs)):
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def _build_all(self, tools: Sequence[Tool], progress: Progress) -> None:
        started = time.monotonic()
        toolchain = self.find_toolchain()
        toolchain.ensure(progress)
        with _go_caches(self.cache / "go"):
            for number, tool in enumerate(tools, start=1):
                title = f"{number}/{len(tools)} {tool.title}"
                self._build(tool, toolchain, _Meter(progress, title, started))
        count = f"{len(tools)} tool{'s' if len(tools) > 1 else ''}"
        progress(f"{count} compiled in {_minutes(time.monotonic() - started)}")

    def _build(self, tool: Tool, toolchain: Toolchain, meter: _Meter) -> None:
        folder = self.folder(tool.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock"), meter):
            if not folder.is_dir():  # another process may have made it in the meantime
                self._build_alone(tool, folder, toolchain, meter)

    def _build_alone(self, tool: Tool, folder: Path, toolchain: Toolchain, meter: _Meter) -> None:
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        log = folder.with_name(f"{folder.name}.log")
        log.unlink(missing_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            (unfinished / "bin").mkdir(parents=True)
            go = _Go(toolchain, self.cache / "go", self.source(tool), log, meter)
            _make(tool, go, unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        log.unlink(missing_ok=True)


def ensure_tools(names: Sequence[str], progress: Progress = silent) -> None:
    """Compiles those of the named tools that this machine's cache does not have.

    Raises:
        LocalEnvironmentError: a build failed; shows the end of its log and names the log.
    """
    Toolbox().ensure(names, progress)


def binary(name: str) -> Path:
    """The path of a compiled program, such as `kubelet`.

    Raises:
        LocalEnvironmentError: its tool is not compiled yet.
    """
    return Toolbox().binary(name)


def needed_for_up() -> tuple[str, ...]:
    """The tools without which `up` cannot begin; a released Pulumi spares compiling ours."""
    spared = {"pulumi"} if _pulumi_choice().is_released else set()
    return tuple(name for name in NEEDED_FOR_UP if name not in spared)


def pulumi_command() -> PulumiCommand:
    """The Pulumi that runs the stack; see `choose_pulumi`.

    Raises:
        LocalEnvironmentError: there is no released one, and ours is not compiled yet.
    """
    command = _pulumi_choice()
    if not command.is_released:
        binary("pulumi")
    return command


def istio_charts() -> Path:
    """The folder of Istio's Helm charts: base, istio-cni, istiod, gateway."""
    return Toolbox().folder("istio") / "charts"


def istio_bootstrap() -> Path:
    """The template from which pilot-agent writes Envoy's bootstrap."""
    return Toolbox().folder("istio") / "envoy_bootstrap.json"


def kwok_stages() -> Path:
    """The folder of what kwok's nodes and pods go through, as its project ships it."""
    return Toolbox().folder("kwok") / "stage"


def _pulumi_choice() -> PulumiCommand:
    return choose_pulumi(os.environ, Toolbox().path("pulumi"), _ADAPTERS)


def _make(tool: Tool, go: _Go, folder: Path) -> None:
    for build in tool.builds:
        go.build(tool, build, folder / "bin")
    if tool.multicall:
        for name in tool.binaries:
            (folder / "bin" / name).symlink_to(tool.multicall)
    for files in tool.files:
        _copy(files, go.module_folder(files.module), folder)
    absent = [name for name in tool.binaries if not (folder / "bin" / name).exists()]
    if absent:
        raise LocalEnvironmentError(f"building {tool.title} did not make {', '.join(absent)}")


def _copy(files: ModuleFiles, module: Path, folder: Path) -> None:
    source, target = module / files.source, folder / files.target
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)
    if target.parent.name == "bin":
        target.chmod(0o755)
    for path in target.glob("*.yaml"):
        text = path.read_text()
        for old, new in files.replacements:
            text = text.replace(old, new)
        path.write_text(text)


@dataclass(frozen=True)
class _Go:
    """The Go command at work in one tool's module."""

    toolchain: Toolchain
    caches: Path
    source: Path
    log: Path
    meter: _Meter

    def build(self, tool: Tool, build: Build, target: Path) -> None:
        stamps = " ".join(f"-X {variable}={value}" for variable, value in tool.stamps)
        self._run(
            tool,
            *(("test", "-c") if build.tests else ("build",)),
            *("-tags", ",".join(build.tags)),
            # What only a debugger needs costs a tenth of the time and is stripped in the end.
            *("-gcflags", "all=-dwarf=false", "-ldflags", f"-s -w {stamps}"),
            *("-o", f"{target}/{build.tests}", *build.packages),
        )

    def module_folder(self, module: str) -> Path:
        done = subprocess.run(
            [self.toolchain.command, "list", "-m", "-f", "{{.Dir}}", module],
            cwd=self.source,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not done.stdout.strip():
            raise LocalEnvironmentError(f"looking for the Go module {module}: {done.stderr}")
        return Path(done.stdout.strip())

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOCACHE": str(self.caches / "build"),
            # The compiler collects garbage only when memory gets short: a seventh of its time.
            "GOGC": "off",
            "GOMEMLIMIT": "3GiB",
            # Without -modcacherw, the module cache is read-only and `rm -r` cannot remove it.
            "GOFLAGS": "-mod=readonly -trimpath -modcacherw -buildvcs=false",
            "GOMODCACHE": str(self.caches / "mod"),
            "GOTMPDIR": str(self.caches / "tmp"),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def _run(self, tool: Tool, *arguments: str) -> None:
        """Runs Go in a session of its own, so that ending it ends the compilers it started.

        It ends too when this process is killed, and so never writes into the next one's folder.
        """
        (self.caches / "tmp").mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self.toolchain.command, *arguments],
                cwd=self.source,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            returncode = self._watch(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        if returncode:
            raise LocalEnvironmentError(
                f"building {tool.title} ended with {returncode}{log_end(self.log)}",
                fix="see the log above; the next run goes on with what is compiled already",
            )

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        while True:
            self.meter.show(_activity(self.log))
            try:
                return process.wait(_TICK_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def _activity(log: Path) -> str:
    """What Go is doing: it says what it downloads, and nothing while it compiles."""
    said = log.stat()
    is_downloading = said.st_size > 0 and time.time() - said.st_mtime < _DOWNLOAD_SECONDS
    return "downloading" if is_downloading else "compiling"


class _Meter:
    """Tells how long a step and everything so far took."""

    def __init__(self, progress: Progress, title: str, all_started: float) -> None:
        self._progress = progress
        self._title = title
        self._started = time.monotonic()
        self._all_started = all_started

    def show(self, activity: str) -> None:
        now = time.monotonic()
        self._progress(
            f"{self._title}: {activity}, {_minutes(now - self._started)}"
            f" (total {_minutes(now - self._all_started)})"
        )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _go_caches(folder: Path) -> Iterator[None]:
    """Keeps Go's caches while tools are compiled, and removes these gigabytes afterwards.

    After a failure they stay, so that the next run goes on with what is compiled already; and as
    long as another process compiles with them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path, meter: _Meter) -> Iterator[None]:
    """Holds a lock that the system releases when its holder ends, however it ends."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                meter.show("waiting for another build of it")
                time.sleep(_LOCK_POLL_SECONDS)
        yield
