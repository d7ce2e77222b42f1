"""What is asked of a machine before anything is made on it."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.local import preflight
from infra.local.errors import LocalEnvironmentError
from infra.local.preflight import Disk, Machine, faults

GOOD = Machine(
    system="Linux",
    architecture="x86_64",
    user_id=0,
    missing_commands=(),
    namespace_fault="",
    cgroup_version=1,
    cgroup_controllers=frozenset({"cpu", "cpuset", "devices", "memory", "pids"}),
    disks=(Disk(Path("/cache"), 40.0, 16.0), Disk(Path("/src/.voicemesh"), 40.0, 4.0)),
    free_memory_gibibytes=20.0,
    busy_ports=(),
    is_running=False,
)


def test_a_good_machine_has_no_faults() -> None:
    assert faults(GOOD) == []
    preflight.check_machine(GOOD)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"system": "Darwin", "architecture": "arm64"}, "Darwin on arm64"),
        ({"architecture": "aarch64"}, "Linux on aarch64"),
        ({"user_id": 1000}, "1000 is not root"),
        ({"missing_commands": ("ip", "nsenter")}, "not found: ip, nsenter"),
        ({"namespace_fault": "unshare failed: Operation not permitted"}, "not permitted"),
        ({"cgroup_version": 0}, "no control groups"),
        ({"cgroup_controllers": frozenset({"cpu", "memory"})}, "lack cpuset, devices, pids"),
        ({"disks": (Disk(Path("/cache"), 3.5, 16.0),)}, "/cache has 3.5 GiB of free disk"),
        ({"free_memory_gibibytes": 1.5}, "1.5 GiB of memory are free"),
        ({"busy_ports": (8443,)}, "port 8443"),
    ],
)
def test_each_fault_is_named_with_its_value(change: dict[str, Any], named: str) -> None:
    (fault,) = faults(replace(GOOD, **change))
    assert named in fault


def test_control_groups_of_version_2_need_no_controllers_that_it_does_not_have() -> None:
    controllers = frozenset({"cpu", "memory", "pids"})
    assert faults(replace(GOOD, cgroup_version=2, cgroup_controllers=controllers)) == []


def test_all_faults_are_in_one_message() -> None:
    bad = replace(GOOD, busy_ports=(8443, 6443), free_memory_gibibytes=1.0)
    with pytest.raises(LocalEnvironmentError) as caught:
        preflight.check_machine(bad)
    assert caught.value.message.count("\n  - ") == 3
    for named in ("8443", "6443", "memory"):
        assert named in caught.value.message


def test_a_running_environment_has_its_memory_already() -> None:
    assert faults(replace(GOOD, is_running=True, free_memory_gibibytes=0.5)) == []


def test_a_port_that_another_program_has_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert preflight.busy_ports([port]) == (port,)
    assert preflight.busy_ports([port]) == ()


def test_a_port_that_another_program_has_on_all_addresses_is_busy() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert preflight.busy_ports([port]) == (port,)


def test_this_machine_is_read_without_touching_it() -> None:
    before = sorted(Path(preflight.__file__).parents[2].iterdir())
    assert preflight.read_machine().system == "Linux"
    assert sorted(Path(preflight.__file__).parents[2].iterdir()) == before
