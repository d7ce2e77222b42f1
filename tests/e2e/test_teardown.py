"""`make down` leaves nothing behind; `make up` copes with whatever it finds.

The tests of this module follow each other in the order of the file, and end with nothing running.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.local import cgroups, cleanup, debian, processes, stack
from infra.local.paths import CHECKOUT, RUN, STATE
from tests.e2e.environment import Environment, eventually, local

pytestmark = pytest.mark.usefixtures("without_lab")


@dataclass(frozen=True)
class Machine:
    """What an environment could leave on a machine."""

    programs: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: str
    routes: str
    tables: frozenset[str]
    groups: frozenset[str]
    ports: frozenset[int]

    @classmethod
    def now(cls) -> Machine:
        return cls(
            programs=frozenset(
                " ".join(process.info["cmdline"] or [])
                for process in psutil.process_iter(["cmdline"])
                if _is_ours(" ".join(process.info["cmdline"] or []))
            ),
            mounts=frozenset(Path("/proc/self/mounts").read_text().splitlines()),
            namespaces=frozenset(_lines("ip", "netns", "list")),
            links=_without_counters("ip", "-o", "link"),
            routes=_without_counters("ip", "route", "show", "table", "all"),
            tables=frozenset(_lines(str(debian.binary("nft")), "list", "tables")),
            groups=frozenset(str(path) for path in Path("/sys/fs/cgroup").glob("**/voicemesh*")),
            ports=frozenset(
                connection.laddr[1]
                for connection in psutil.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and connection.laddr
            ),
        )


def _is_ours(command: str) -> bool:
    words = ("kubelet", "kube-", "containerd", "etcd", "envoy", "pilot-", "moto", "speech_server")
    return any(word in command for word in words) and "pytest" not in command


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, text=True, capture_output=True, check=True).stdout.splitlines()


def _without_counters(*argv: str) -> str:
    return "\n".join(line.partition(" qdisc")[0] for line in _lines(*argv))


def _rounds(config: pytest.Config) -> int:
    return 3 if config.getoption("--soak") else 1


def test_down_leaves_the_machine_as_up_found_it(hosted: None, pytestconfig: pytest.Config) -> None:
    assert local("down").returncode == 0
    before = Machine.now()
    for _ in range(_rounds(pytestconfig)):
        up = local("up")
        assert up.returncode == 0, up.stdout + up.stderr
        assert Machine.now() != before, "a running environment is seen"
        assert local("down").returncode == 0
        assert Machine.now() == before
        assert cleanup.leftovers() == []
        assert not RUN.exists()
        assert not STATE.exists()


def test_down_again_is_not_an_error() -> None:
    down = local("down")
    assert down.returncode == 0, down.stdout + down.stderr


def test_up_refuses_a_port_in_use_and_makes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 8443)):
        up = local("up")
    assert up.returncode != 0
    assert "8443" in up.stdout + up.stderr
    assert cleanup.leftovers() == []


def test_up_refuses_a_user_who_is_not_root_and_makes_nothing() -> None:
    # In a user namespace without a mapping, every process is the overflow user.
    argv = ["unshare", "--user", sys.executable, "-m", "infra.local", "up"]
    up = subprocess.run(argv, cwd=CHECKOUT, text=True, capture_output=True, check=False)
    assert up.returncode != 0
    assert "root" in up.stdout + up.stderr
    assert cleanup.leftovers() == []


@pytest.fixture
def environment_again() -> Environment:
    up = local("up")
    assert up.returncode == 0, up.stdout + up.stderr
    return Environment.running()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_up_goes_on_where_an_earlier_one_was(number: signal.Signals) -> None:
    assert local("down").returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "infra.local", "up"],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        eventually(_is_making_the_mesh, 300, "the engine is at work on the mesh")
        os.killpg(first.pid, number)
    assert first.returncode != 0
    up = local("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert stack.preview().total == 0


def _is_making_the_mesh() -> bool:
    namespaces = Environment.running().core.list_namespace().items
    return "istio-system" in {namespace.metadata.name for namespace in namespaces}


def test_another_checkouts_live_environment_is_refused_by_name(
    environment_again: Environment, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(other)], check=True)
    argv = [sys.executable, "-m", "infra.local", "up"]
    environment = {**os.environ, "PYTHONPATH": f"{other}:{other / 'components'}"}
    up = subprocess.run(
        argv, cwd=other, env=environment, text=True, capture_output=True, check=False
    )
    assert up.returncode != 0
    assert str(CHECKOUT) in up.stdout + up.stderr
    assert processes.running("kube-apiserver")


def test_up_works_after_everything_was_killed_and_a_restart(
    environment_again: Environment, tmp_path: Path
) -> None:
    for pid in cgroups.members():
        os.kill(pid, signal.SIGKILL)
    _forget_as_a_restart_does()
    up = local("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert local("down").returncode == 0
    assert cleanup.leftovers() == []


def _forget_as_a_restart_does() -> None:
    """Removes what a restart would: mounts, namespaces, groups and all of /run."""
    for name in _lines("ip", "netns", "list"):
        if name.startswith("voicemesh"):
            subprocess.run(["ip", "netns", "delete", name.split()[0]], check=True)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith((str(RUN), str(STATE))):
            subprocess.run(["umount", "--lazy", target], check=True)
    shutil.rmtree(RUN, ignore_errors=True)
