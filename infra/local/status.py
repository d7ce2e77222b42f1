"""What `make status` shows."""

from __future__ import annotations

from collections.abc import Iterable

import psutil
from rich.table import Table

from infra.local import cgroups, ownership, processes, up
from infra.local.display import console
from infra.local.topology import FORWARDS

_MIB = 1 << 20


def show() -> None:
    """Prints owner, daemons with their memory, the ways in, and the sum of all memory."""
    owner = ownership.read_owner()
    if owner is None:
        console.print("down: no checkout has an environment on this machine")
        return
    console.print(f"environment of {owner.checkout}", soft_wrap=True)
    table = Table("daemon", "process", "memory (PSS)", box=None)
    for name in processes.recorded_daemons():
        process = processes.running(name)
        memory = f"{memory_bytes([process.pid]) // _MIB} MiB" if process else ""
        table.add_row(name, str(process.pid) if process else "[red]not running[/red]", memory)
    console.print(table)
    for way in FORWARDS:
        console.print(f"127.0.0.1:{way.port} leads to {way.purpose}")
    console.print(f"the voice: {up.door().url}, authority {up.GATEWAY_AUTHORITY}", soft_wrap=True)
    total = memory_bytes(cgroups.members())
    console.print(f"memory of everything (PSS): {total / _MIB:.0f} MiB")


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of processes: what they share is counted once among them."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.Error:
            continue
    return total
