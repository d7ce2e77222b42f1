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
from infra.local.versions import (
    COREDNS_VERSION,
    GO_VERSION,
    HELM_VERSION,
    ISTIO_MODULE_VERSION,
    ISTIO_VERSION,
    KUBERNETES_VERSION,
    METRICS_SERVER_VERSION,
    NETWORK_POLICIES_VERSION,
    PULUMI_VERSION,
)
from infra.local.waiting import log_end

_SOURCES = Path(__file__).parent / "tools"
_ADAPTERS = Path(__file__).parent / "adapters" / "bin"
_TICK_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Build:
    """One run of the Go compiler.

    Attributes:
        packages: import paths of the programs; `.` is the tool's own `main.go`.
        tags: build tags.
    """

    packages: tuple[str, ...] = (".",)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleFiles:
    """Files that a tool takes from a Go module as they are.

    Attributes:
        module: the module's path.
        source: a file or folder in it.
        target: where it goes in the tool's folder.
        replacements: text to be replaced in every YAML file at the top of it, with its new text.
    """

    module: str
    source: str
    target: str
    replacements: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tool:
    """A Go module of `tools/` and what is made of it.

    Attributes:
        name: its folder in `tools/`.
        version: the version that its programs report.
        binaries: the programs that it provides.
        builds: how they are compiled.
        stamps: string variables set by the linker, with their values.
        multicall: the one program that all binaries are links to; empty if each is its own.
        files: what else it provides.
    """

    name: str
    version: str
    binaries: tuple[str, ...]
    builds: tuple[Build, ...] = (Build(),)
    stamps: tuple[tuple[str, str], ...] = ()
    multicall: str = ""
    files: tuple[ModuleFiles, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def _kubernetes_stamps(version: str) -> tuple[tuple[str, str], ...]:
    major, minor, _ = version.split(".")
    return tuple(
        (f"{package}.{variable}", value)
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in (
            ("gitVersion", f"v{version}"),
            ("gitMajor", major),
            ("gitMinor", minor),
        )
    )


def _istio_chart(source: str, name: str) -> ModuleFiles:
    """A chart as Istio's release process ships it: with the release's version in it."""
    return ModuleFiles(
        "istio.io/istio",
        f"manifests/charts/{source}",
        f"charts/{name}",
        replacements=(
            ("\nversion: 1.0.0\n", f"\nversion: {ISTIO_VERSION}\n"),
            ("\nappVersion: 1.0.0\n", f"\nappVersion: {ISTIO_VERSION}\n"),
            (" hub: registry.istio.io/testing\n", " hub: registry.istio.io/release\n"),
            (" tag: latest\n", f" tag: {ISTIO_VERSION}\n"),
        ),
    )


_ISTIO_STAMPS = tuple(
    (f"istio.io/istio/pkg/version.{variable}", value)
    for variable, value in (
        ("buildVersion", ISTIO_VERSION),
        ("buildTag", ISTIO_VERSION),
        ("buildGitRevision", ISTIO_MODULE_VERSION.rsplit("-", 1)[1]),
        ("buildStatus", "Clean"),
        ("buildHub", "registry.istio.io/release"),
    )
)

TOOLS = (
    Tool(
        "pulumi",
        PULUMI_VERSION,
        binaries=("pulumi", "pulumi-language-python-exec"),
        builds=(
            Build(("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",), ("osusergo", "grpcnotrace")),
        ),
        stamps=(
            ("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version", f"v{PULUMI_VERSION}"),
        ),
        files=(
            ModuleFiles(
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
                "bin/pulumi-language-python-exec",
            ),
        ),
    ),
    Tool(
        "kubernetes",
        KUBERNETES_VERSION,
        binaries=(
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        stamps=_kubernetes_stamps(KUBERNETES_VERSION),
        multicall="kubernetes",
    ),
    Tool(
        "istio",
        ISTIO_VERSION,
        binaries=("pilot-discovery", "pilot-agent", "istio-cni", "install-cni"),
        # The tags are those of Istio's own Makefile.
        builds=(
            Build(("istio.io/istio/pilot/cmd/pilot-discovery",), ("vtprotobuf", "disable_pgv")),
            Build(
                (
                    "istio.io/istio/pilot/cmd/pilot-agent",
                    "istio.io/istio/cni/cmd/istio-cni",
                    "istio.io/istio/cni/cmd/install-cni",
                ),
                ("agent", "disable_pgv", "grpcnotrace", "retrynotrace"),
            ),
        ),
        stamps=_ISTIO_STAMPS,
        files=(
            _istio_chart("base", "base"),
            _istio_chart("istio-cni", "istio-cni"),
            _istio_chart("istio-control/istio-discovery", "istiod"),
            _istio_chart("gateway", "gateway"),
            ModuleFiles(
                "istio.io/istio",
                "tools/packaging/common/envoy_bootstrap.json",
                "envoy_bootstrap.json",
            ),
        ),
    ),
    Tool(
        "helm",
        HELM_VERSION,
        binaries=("helm",),
        builds=(Build(("helm.sh/helm/v3/cmd/helm",)),),
        stamps=(("helm.sh/helm/v3/internal/version.version", f"v{HELM_VERSION}"),),
    ),
    Tool("coredns", COREDNS_VERSION, binaries=("coredns",)),
    Tool(
        "metrics-server",
        METRICS_SERVER_VERSION,
        binaries=("metrics-server",),
        builds=(Build(("sigs.k8s.io/metrics-server/cmd/metrics-server",)),),
        stamps=(("k8s.io/client-go/pkg/version.gitVersion", f"v{METRICS_SERVER_VERSION}"),),
    ),
    Tool("network-policies", NETWORK_POLICIES_VERSION, binaries=("network-policies",)),
)

NEEDED_FOR_UP = (
    "pulumi",
    "kubernetes",
    "istio",
    "helm",
    "coredns",
    "metrics-server",
    "network-policies",
)


@dataclass(frozen=True)
class Toolbox:
    """A set of tools and where they are compiled to.

    Attributes:
        tools: the tools.
        sources: holds a Go module per tool.
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

    def _key(self, tool: Tool) -> str:
        source = self.sources / tool.name
        # The oldest Go that will do, not the one in use: another `go` on PATH is no reason to
        # compile everything again.
        digest = hashlib.sha256(f"{tool}\0{GO_VERSION}".encode())
        for path in (source / "go.mod", source / "go.sum", *sorted(source.glob("*.go"))):
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
            go = _Go(toolchain, self.cache / "go", self.sources / tool.name, log, meter)
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
            "build",
            *("-tags", ",".join(build.tags)),
            # What only a debugger needs costs a tenth of the time and is stripped in the end.
            *("-gcflags", "all=-dwarf=false", "-ldflags", f"-s -w {stamps}"),
            *("-o", f"{target}/", *build.packages),
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
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def _run(self, tool: Tool, *arguments: str) -> None:
        """Runs Go in a session of its own, so that ending it ends the compilers it started."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [self.toolchain.command, *arguments],
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
    lines = log_end(log).splitlines()
    is_downloading = bool(lines) and lines[-1].lstrip().startswith("go: downloading")
    return "downloading and compiling" if is_downloading else "compiling"


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
