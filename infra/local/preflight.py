"""Whether this machine can host the environment: every fault is named before anything is made."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from infra.local import cgroups, image_store, processes
from infra.local.errors import LocalEnvironmentError
from infra.local.forwarder import FORWARDER
from infra.local.paths import CACHE, STATE
from infra.local.topology import FORWARDS

CACHE_GIBIBYTES = 16.0
"""What the tools and images take, with room for what is being built; once they are there, none."""
STATE_GIBIBYTES = 4.0
"""What one life of the environment takes, with room for logs and volumes."""
MEMORY_GIBIBYTES = 5.0
"""What the environment takes with everything in it running, with room for compilers."""

_GIBIBYTE = 1 << 30
_COMMANDS = (
    "apt-get",
    "cp",
    "dpkg-deb",
    "ip",
    "mount",
    "nsenter",
    "rm",
    "taskset",
    "umount",
    "unshare",
)
_CGROUP_CONTROLLERS_V1 = cgroups.NEEDED_CONTROLLERS | {"cpuset", "devices"}
# A mount namespace of its own, with an overlay on the file system that will hold the containers'.
_TRY_OVERLAY = """
cd "$1" && mkdir lower upper work merged &&
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"""


@dataclass(frozen=True)
class Disk:
    """Room for a folder.

    Attributes:
        folder: the folder, which need not exist yet.
        free_gibibytes: free space on its file system.
        needed_gibibytes: how much of it will be taken.
    """

    folder: Path
    free_gibibytes: float
    needed_gibibytes: float


@dataclass(frozen=True)
class Machine:
    """What `faults` decides by.

    Attributes:
        system: name of the operating system, as `uname -s` says.
        architecture: as `uname -m` says.
        user_id: the effective user's; 0 is root.
        missing_commands: commands that are needed and not found.
        namespace_fault: why network or mount namespaces, or an overlay in the folder of the
            environment, cannot be made; empty if they can.
        cgroup_version: 1 or 2; 0 where no control groups are mounted.
        cgroup_controllers: what can be controlled.
        disks: where room is needed; none while the environment runs and has its room.
        free_memory_gibibytes: memory that could be used without swapping.
        busy_ports: loopback ports that the environment needs and others have.
        is_running: whether an environment is on this machine already and has its memory.
    """

    system: str
    architecture: str
    user_id: int
    missing_commands: tuple[str, ...]
    namespace_fault: str
    cgroup_version: int
    cgroup_controllers: frozenset[str]
    disks: tuple[Disk, ...]
    free_memory_gibibytes: float
    busy_ports: tuple[int, ...]
    is_running: bool


def check_machine(machine: Machine | None = None) -> None:
    """Makes sure that the environment can be brought up here.

    Args:
        machine: the machine to judge; this one where it is not given.

    Raises:
        LocalEnvironmentError: it cannot; names every fault with what to do about it.
    """
    found = faults(read_machine() if machine is None else machine)
    if found:
        raise LocalEnvironmentError(
            "this machine cannot host the environment:\n"
            + "\n".join(f"  - {fault}" for fault in found),
            fix="`make test-fast` runs everything that needs no environment",
        )


def faults(machine: Machine) -> list[str]:
    """Everything that keeps a machine from hosting the environment, with what to do about it."""
    if machine.system != "Linux" or machine.architecture != "x86_64":
        return [
            f"it is {machine.system} on {machine.architecture}, and the nodes need Linux on "
            "x86_64: use such a virtual machine, or your own cluster (see the README)"
        ]
    if machine.user_id != 0:
        return [
            f"user id {machine.user_id} is not root, which namespaces and mounts need: use sudo, "
            "or a virtual machine"
        ]
    found: list[str] = []
    if machine.missing_commands:
        found.append(
            f"not found: {', '.join(machine.missing_commands)}; a Debian or Ubuntu with the "
            "packages apt, dpkg, iproute2, mount and util-linux has them"
        )
    if machine.namespace_fault:
        found.append(f"namespaces and overlays cannot be made: {machine.namespace_fault}")
    found += _cgroup_faults(machine)
    found += [
        f"{disk.folder} has {disk.free_gibibytes:.1f} GiB of free disk, and "
        f"{disk.needed_gibibytes:.0f} GiB are needed: make room there"
        for disk in machine.disks
        if disk.free_gibibytes < disk.needed_gibibytes
    ]
    if not machine.is_running and machine.free_memory_gibibytes < MEMORY_GIBIBYTES:
        found.append(
            f"{machine.free_memory_gibibytes:.1f} GiB of memory are free, and "
            f"{MEMORY_GIBIBYTES:.0f} GiB are needed: end other programs"
        )
    found += [
        f"port {port} of the loopback is taken: `ss -ltnp 'sport = :{port}'` shows by whom"
        for port in machine.busy_ports
    ]
    return found


def read_machine() -> Machine:
    """The facts of this machine; what only root on Linux can find out is empty for others."""
    machine = Machine(
        system=platform.system(),
        architecture=platform.machine(),
        user_id=os.geteuid(),
        missing_commands=(),
        namespace_fault="",
        cgroup_version=0,
        cgroup_controllers=frozenset(),
        disks=(),
        free_memory_gibibytes=0.0,
        busy_ports=(),
        is_running=False,
    )
    if machine.system != "Linux" or machine.user_id != 0:
        return machine
    groups = cgroups.hierarchies()
    is_running = bool(cgroups.members())
    forwards = processes.running(FORWARDER) is not None
    missing = tuple(command for command in _COMMANDS if shutil.which(command) is None)
    return replace(
        machine,
        missing_commands=missing,
        namespace_fault="" if missing or is_running else _namespace_fault(),
        cgroup_version=min((group.version for group in groups), default=0),
        cgroup_controllers=cgroups.controllers(groups),
        disks=() if is_running else _disks(),
        free_memory_gibibytes=_available_memory(Path("/proc/meminfo").read_text()),
        busy_ports=() if forwards else busy_ports([way.port for way in FORWARDS]),
        is_running=is_running,
    )


def busy_ports(ports: Sequence[int]) -> tuple[int, ...]:
    """Those of the loopback's ports on which nothing new could listen."""
    return tuple(port for port in ports if not _can_listen(port))


def _cgroup_faults(machine: Machine) -> list[str]:
    if machine.cgroup_version == 0:
        return [
            "no control groups are mounted in /sys/fs/cgroup: in a container, run it privileged"
        ]
    first = machine.cgroup_version == 1
    needed = _CGROUP_CONTROLLERS_V1 if first else cgroups.NEEDED_CONTROLLERS
    missing = sorted(needed - machine.cgroup_controllers)
    if not missing:
        return []
    return [
        f"control groups lack {', '.join(missing)}: the kernel's command line may switch it off"
    ]


def _namespace_fault() -> str:
    unshare = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c", _TRY_OVERLAY]
    try:
        with tempfile.TemporaryDirectory(prefix=".try-", dir=_existing(STATE)) as folder:
            done = subprocess.run(
                [*unshare, "sh", folder], capture_output=True, text=True, check=False
            )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def _disks() -> tuple[Disk, ...]:
    built = image_store.is_filled()
    needs = ((CACHE, 0.0 if built else CACHE_GIBIBYTES), (STATE, STATE_GIBIBYTES))
    return tuple(Disk(folder, _free_disk(folder), needed) for folder, needed in needs)


def _free_disk(folder: Path) -> float:
    return shutil.disk_usage(_existing(folder)).free / _GIBIBYTE


def _existing(folder: Path) -> Path:
    """The folder, or the closest above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _available_memory(meminfo: str) -> float:
    """Gibibytes that could be used without swapping, from the text of /proc/meminfo."""
    line = next(line for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / _GIBIBYTE


def _can_listen(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            return False
    return True
