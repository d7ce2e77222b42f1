"""`make bench`: figures of the embedded environment on this machine, as a table.

Starts from an environment that is down, with the caches as they are, and leaves it down.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.local import cgroups, status, up
from infra.local.paths import CHECKOUT
from infra.local.speak import sentences, speak

_REQUESTS = 50
_MIB = 1 << 20


def main() -> None:
    console = Console()
    table = Table("what", "figure", box=None)
    with console.status("down"):
        _local("down")
    for title, arguments in [
        ("make up, caches as they are", "up"),
        ("make up again, already up", "up"),
    ]:
        with console.status(title):
            table.add_row(title, f"{_timed(lambda name=arguments: _local(name)):.1f} s")
    table.add_row("memory of everything (PSS)", f"{_memory_mib():.0f} MiB")
    with console.status("speech through gateway and sidecar"):
        for row in _speech_rows():
            table.add_row(*row)
    with console.status("down"):
        table.add_row("make down", f"{_timed(lambda: _local('down')):.1f} s")
    console.print(table)


def _speech_rows() -> list[tuple[str, str]]:
    first, total = [], []
    door = up.door()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_REQUESTS):
            text = sentences()[number % len(sentences())]
            spoken = speak(door, text, Path(folder) / "a.wav")
            first.append(spoken.first_audio_seconds)
            total.append(spoken.total_seconds)
    return [
        (f"first 100 ms of audio, {_REQUESTS} sentences", _median_and_worst(first)),
        (f"all audio, {_REQUESTS} sentences", _median_and_worst(total)),
    ]


def _median_and_worst(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1e3:.0f} ms, worst {max(seconds) * 1e3:.0f} ms"


def _memory_mib() -> float:
    return status.memory_bytes(cgroups.members()) / _MIB


def _timed(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _local(name: str) -> None:
    argv = [sys.executable, "-m", "infra.local", name]
    subprocess.run(argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)


main()
