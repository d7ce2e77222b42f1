"""Daemons: which process a record means, and what is read of it from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import processes
from infra.local.errors import LocalEnvironmentError
from infra.local.processes import Process

STAT = "41 ({name}) {state} 1 41 41 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 98765 3068 0\n"


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A real process, recorded as the daemon `sleeper`."""
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    with subprocess.Popen(["sleep", "600"]) as child:
        ticks = processes.started_ticks(child.pid)
        assert ticks is not None
        _record(tmp_path, child.pid, ticks)
        yield Process(child.pid, ticks)
        child.kill()


def test_a_recorded_process_is_found(sleeper: Process) -> None:
    assert processes.running("sleeper") == sleeper


def test_an_id_that_came_to_mean_another_process_is_not_the_daemon(
    sleeper: Process, tmp_path: Path
) -> None:
    _record(tmp_path, sleeper.pid, sleeper.started_ticks - 1)
    assert processes.running("sleeper") is None


def test_another_process_with_the_recorded_id_is_not_stopped(
    sleeper: Process, tmp_path: Path
) -> None:
    _record(tmp_path, sleeper.pid, sleeper.started_ticks - 1)
    processes.stop_daemon("sleeper")
    assert processes.started_ticks(sleeper.pid) == sleeper.started_ticks


def test_a_stopped_daemon_is_gone_and_forgotten_when_the_call_returns(sleeper: Process) -> None:
    assert processes.recorded_daemons() == ["sleeper"]
    processes.stop_daemon("sleeper")
    assert processes.started_ticks(sleeper.pid) is None
    assert processes.recorded_daemons() == []


def test_a_daemon_is_another_one_when_its_configuration_is(tmp_path: Path) -> None:
    config = tmp_path / "kubelet.yaml"
    config.write_text("one")
    daemon = processes.Daemon("kubelet", ["kubelet"], configuration=config)
    before = processes.identity(daemon)
    assert processes.identity(daemon) == before
    config.write_text("other")
    assert processes.identity(daemon) != before


def test_a_daemon_that_ended_fails_the_check_with_its_log(
    sleeper: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOGS", tmp_path)
    (tmp_path / "kubelet.log").write_text("cannot go on\n")
    processes.check_running(["sleeper"])
    with pytest.raises(LocalEnvironmentError, match=r"(?s)kubelet ended on its own.*cannot go on"):
        processes.check_running(["sleeper", "kubelet"])


def test_a_killed_daemon_is_remembered(sleeper: Process) -> None:
    os.kill(sleeper.pid, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.running("sleeper") is None
    assert processes.recorded_daemons() == ["sleeper"]


def test_a_daemon_without_a_record_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    assert processes.running("nobody") is None


@pytest.mark.parametrize("torn", ["", "41", "failed\n", "41 x", "41 98765 7"])
def test_a_torn_record_means_no_process(torn: str) -> None:
    assert processes.parse_record(torn) is None


def test_a_whole_record_means_a_process() -> None:
    assert processes.parse_record("41 98765\n") == Process(41, 98765)


@pytest.mark.parametrize("name", ["etcd", "a b) c", "(sd-pam)"])
def test_the_start_time_is_found_behind_any_name(name: str) -> None:
    assert processes.parse_stat(STAT.format(name=name, state="S")) == 98765


@pytest.mark.parametrize("state", ["Z", "X"])
def test_what_only_waits_to_be_reaped_has_ended(state: str) -> None:
    assert processes.parse_stat(STAT.format(name="etcd", state=state)) is None


def test_the_time_of_a_start_is_known_to_two_seconds() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        ticks = processes.started_ticks(child.pid)
        assert ticks is not None
        now = float(subprocess.check_output(["date", "+%s.%N"]))
        assert abs(processes.started_at(Process(child.pid, ticks)) - now) < 2
        child.kill()


def test_only_listening_ports_count() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        "   0: 0100007F:094B 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:A1B2 0100007F:094B 01 00000000:00000000\n"
    )
    assert processes.parse_listening_ports(table) == {2379}


def test_only_listening_sockets_count() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000: 00000002 00000000 00010000 0001 01 111 /run/containerd/containerd.sock\n"
        "0000: 00000003 00000000 00000000 0001 03 112 /run/containerd/other.sock\n"
        "0000: 00000003 00000000 00010000 0001 01 113\n"
    )
    assert processes.parse_listening_sockets(table) == {"/run/containerd/containerd.sock"}


def test_the_ports_of_this_network_are_read_from_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in processes.listening_ports(os.getpid())
    assert port not in processes.listening_ports(os.getpid())


def _record(folder: Path, pid: int, ticks: int) -> None:
    (folder / "sleeper.pid").write_text(f"{pid} {ticks}\n")
