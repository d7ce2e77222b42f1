"""How long the embedded environment takes to come up and to speak, and what it uses.

Starts from an environment that is down, with the caches as they are, and leaves it down.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.local import cgroups, status, up
from infra.local.paths import CHECKOUT
from infra.local.speak import sentences, speak

Figure = tuple[str, str]
"""What was measured, and what came out."""

_REQUESTS = 50
_MIB = 1 << 20


def figures() -> Iterator[Figure]:
    """Brings the environment up, lets it speak, and takes it down."""
    local("down")
    for title in ("make up, caches as they are", "make up again, already up"):
        yield title, f"{_timed(lambda: local('up')):.1f} s"
    yield "memory of everything (PSS)", f"{_memory_mib():.0f} MiB"
    yield from _speech()
    yield "make down", f"{_timed(lambda: local('down')):.1f} s"


def _speech() -> list[Figure]:
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


def local(command: str) -> None:
    """Runs a command of the embedded environment."""
    argv = [sys.executable, "-m", "infra.local", command]
    subprocess.run(argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
