"""Control groups: every process of the environment is in one, so that none can be lost.

Daemons are in `/voicemesh/daemons/<name>`, pods below `/voicemesh/<node>`. What a daemon starts is
in its group too, whatever became of its parent.

Version 1, where each controller has a hierarchy of its own, is what this was developed on. Version
2 follows the kernel's documentation and has not been run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import LocalEnvironmentError

ROOT_GROUP = "voicemesh"
NEEDED_CONTROLLERS = frozenset({"cpu", "memory", "pids"})
"""Without one of these the kubelet does not start; version 1 needs `cpuset` and `devices` too."""

_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups.

    Attributes:
        root: where it is mounted.
        version: 1 or 2.
        controllers: what it controls; for version 2 see `cgroup.controllers` in its root.
    """

    root: Path
    version: int
    controllers: frozenset[str] = frozenset()

    def folder(self, group: str) -> Path:
        """Folder of a group such as `daemons/etcd`, or of all groups of the environment ("")."""
        return self.root / ROOT_GROUP / group if group else self.root / ROOT_GROUP


def hierarchies(mounts: str | None = None) -> list[Hierarchy]:
    """The hierarchies of this machine.

    Args:
        mounts: the text of /proc/mounts; this process' own where it is not given.
    """
    found: list[Hierarchy] = []
    text = Path("/proc/mounts").read_text() if mounts is None else mounts
    for line in text.splitlines():
        _, root, kind, options, *_ = line.split()
        path = Path(root)
        if any(known.root == path for known in found):
            continue
        if kind == "cgroup":
            found.append(Hierarchy(path, 1, frozenset(options.split(","))))
        elif kind == "cgroup2":
            found.append(Hierarchy(path, 2))
    return found


def controllers(found: list[Hierarchy]) -> frozenset[str]:
    """What can be controlled on this machine, over all hierarchies."""
    names: set[str] = set()
    for hierarchy in found:
        if hierarchy.version == 1:
            names |= hierarchy.controllers
        else:
            names |= set((hierarchy.root / "cgroup.controllers").read_text().split())
    return frozenset(names)


def ensure_group(group: str) -> list[Path]:
    """Makes a group below `/voicemesh` in every hierarchy and returns its folders."""
    found = hierarchies()
    # Beside version 1, which has the controllers that count, version 2 only holds the processes.
    delegates = all(hierarchy.version == 2 for hierarchy in found)
    return [_ensure_folder(hierarchy, group, delegates) for hierarchy in found]


def group_of(pid: int) -> str | None:
    """The environment's group that a process is in, such as `daemons/etcd`; None if in none."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    return parse_group(text)


def parse_group(proc_cgroup: str) -> str | None:
    """The environment's group in the text of /proc/<pid>/cgroup; None if in none."""
    for line in proc_cgroup.splitlines():
        path = line.split(":", 2)[2]
        if path == f"/{ROOT_GROUP}" or path.startswith(f"/{ROOT_GROUP}/"):
            return path.removeprefix(f"/{ROOT_GROUP}").strip("/")
    return None


def members(group: str = "") -> set[int]:
    """Process ids in a group and all groups below it, over all hierarchies."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        for folder in _folders(hierarchy.folder(group)):
            pids |= _pids(folder / "cgroup.procs")
    return pids


def kill_members(group: str = "") -> None:
    """Kills every process in a group and below, until none is left.

    Raises:
        LocalEnvironmentError: some could not be killed; names them.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while pids := members(group):
        if time.monotonic() > deadline:
            raise LocalEnvironmentError(
                f"processes that do not end: {', '.join(map(describe, sorted(pids)))}"
            )
        for pid in pids:
            _kill_member(pid)
        time.sleep(0.02)


def remove_groups() -> None:
    """Removes all groups of the environment; they must be without processes."""
    deadline = time.monotonic() + _KILL_SECONDS
    for hierarchy in hierarchies():
        for folder in _folders(hierarchy.folder("")):
            _remove_folder(folder, deadline)


def describe(pid: int) -> str:
    """A process id with its command, for people."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = "gone"
    return f"{pid} ({command.strip()[:80]})"


def _ensure_folder(hierarchy: Hierarchy, group: str, delegates: bool) -> Path:
    level = hierarchy.root
    for part in (ROOT_GROUP, *Path(group).parts):
        if delegates:
            _delegate(level)
        level /= part
        level.mkdir(exist_ok=True)
        if "cpuset" in hierarchy.controllers:
            _inherit_cpuset(level)
    return level


def _delegate(parent: Path) -> None:
    """Lets the children of a version 2 group have all controllers that it has."""
    available = set((parent / "cgroup.controllers").read_text().split())
    enabled = set((parent / "cgroup.subtree_control").read_text().split())
    if missing := available - enabled:
        wanted = " ".join(f"+{name}" for name in sorted(missing))
        try:
            (parent / "cgroup.subtree_control").write_text(wanted)
        except OSError as error:
            raise LocalEnvironmentError(
                f"the control group {parent} cannot pass on {', '.join(sorted(missing))}: {error}",
                fix="a container whose own group holds processes cannot host the environment; "
                "run it on the machine, or in a virtual machine",
            ) from error


def _inherit_cpuset(level: Path) -> None:
    """A version 1 cpuset takes no process before its cpus and mems are set."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (level / name).read_text().strip():
            (level / name).write_text((level.parent / name).read_text())


def _folders(top: Path) -> Iterator[Path]:
    """The folders of a group and all below it, the deepest first."""
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _pids(procs: Path) -> set[int]:
    try:
        return {int(line) for line in procs.read_text().split()} - {0}
    except OSError:
        return set()


def _kill_member(pid: int) -> None:
    """Kills a process if it is still a member: a pidfd cannot come to mean another process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if group_of(pid) is not None:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _remove_folder(folder: Path, deadline: float) -> None:
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # The kernel takes a moment to see that the last process of a group has ended.
            if time.monotonic() > deadline:
                raise LocalEnvironmentError(f"removing the group {folder}: {error}") from error
            time.sleep(0.02)
