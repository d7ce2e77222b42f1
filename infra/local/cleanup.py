"""Taking everything away again, and naming what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from infra.local import cgroups, limits, network
from infra.local.commands import run_command
from infra.local.errors import LocalEnvironmentError
from infra.local.mounts import mount_points
from infra.local.paths import LOGS, RUN, STATE
from infra.local.topology import HUB_BRIDGE, NODES

_KEPT_WHILE_LOCKED = "lock"
_END_SECONDS = 10.0
_CLEAR_SECONDS = 10.0


def clear() -> None:
    """Ends every process of the environment and removes everything it made.

    Works from any half-made state, and does nothing where there is nothing.

    Raises:
        LocalEnvironmentError: something could not be removed; names it.
    """
    deadline = time.monotonic() + _CLEAR_SECONDS
    while True:
        cgroups.kill_members()
        _end_inhabitants()
        _unmount()
        network.delete_network()
        cgroups.remove_groups()
        limits.restore_inotify_instances()
        _delete_files()
        left = leftovers()
        if not left:
            return
        # Commands that a killed `up` had begun may still have been at work in between.
        if time.monotonic() > deadline:
            raise LocalEnvironmentError("could not remove everything:\n  " + "\n  ".join(left))
        time.sleep(0.2)


def leftovers() -> list[str]:
    """Names everything of an environment that is on this machine; empty after `down`."""
    return [
        *(f"process {cgroups.describe(pid)}" for pid in sorted(cgroups.members())),
        *(f"process {cgroups.describe(pid)} in a namespace" for pid in sorted(_inhabitants())),
        *(f"mount {path}" for path in _mounts()),
        *(f"network namespace {name}" for name in sorted(network.namespaces())),
        *(f"network interface {name}" for name in _interfaces()),
        *(f"control group {folder}" for folder in _groups()),
        *(f"file {path}" for path in _files()),
    ]


def remains() -> list[str]:
    """What of `leftovers()` an environment cannot begin beside: all but logs.

    Images are built, and log it, before the environment begins.
    """
    logs_only = STATE.is_dir() and all(path == LOGS for path in STATE.iterdir())
    return [line for line in leftovers() if not (logs_only and line == f"file {STATE}")]


def _inhabitants() -> set[int]:
    """Processes in the environment's network namespaces, besides the members of its groups."""
    ours = {(network.NAMESPACES / name).stat().st_ino for name in network.namespaces()}
    if not ours:
        return set()
    return {pid for pid in _pids() if _network_of(pid) in ours} - cgroups.members() - _ancestry()


def _end_inhabitants() -> None:
    """Kills what someone started inside a namespace, which could not end while they live."""
    deadline = time.monotonic() + _END_SECONDS
    while pids := _inhabitants():
        if time.monotonic() > deadline:
            raise LocalEnvironmentError(
                f"processes that do not end: {', '.join(map(cgroups.describe, sorted(pids)))}"
            )
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def _unmount() -> None:
    # The last mount is on top of the others.
    for path in reversed(_mounts()):
        run_command(["umount", "-l", str(path)], f"unmounting {path}")


def _mounts() -> list[Path]:
    places = (RUN, STATE)
    return [
        path
        for path in mount_points()
        if any(path == place or place in path.parents for place in places)
    ]


def _interfaces() -> list[str]:
    """Links in the machine's own network that have the environment's names."""
    ours = {HUB_BRIDGE, *(node.link for node in NODES)}
    shown = run_command(["ip", "-json", "link"], "listing the machine's links")
    return sorted(ours & {link["ifname"] for link in json.loads(shown)})


def _groups() -> list[Path]:
    roots = (hierarchy.folder("") for hierarchy in cgroups.hierarchies())
    return [folder for folder in roots if folder.exists()]


def _files() -> list[Path]:
    runtime = RUN.iterdir() if RUN.is_dir() else ()
    state = [STATE] if STATE.exists() else []
    return [*(path for path in runtime if path.name != _KEPT_WHILE_LOCKED), *state]


def _delete_files() -> None:
    for path in _files():
        if not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        # `rm` is several times as fast as shutil on the nodes' image stores.
        subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=False)
        shutil.rmtree(path, ignore_errors=True)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _network_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def _ancestry() -> set[int]:
    """This process and those that started it."""
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids
