"""What it takes to declare many voices in the program of `staging`, without an engine.

    python -m tests.bench.registrations VOICES

prints the figures of one program as JSON; each has a process of its own, for its peak memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.preview.program import record_program
from tests.stacks import many_services

TENANTS = 20
VOICES = (1, 10, 50)
_KIBIBYTES_PER_MEBIBYTE = 1024


@dataclass(frozen=True)
class Declared:
    """What one program took."""

    voices: int
    resources: int
    seconds: float
    """Of CPU time."""

    peak_mebibytes: float


def figures() -> Iterator[tuple[str, str]]:
    """The three programs, and what each further voice costs between them."""
    first, *others = programs = [_in_its_own_process(count) for count in VOICES]
    for program in programs:
        figure = (
            f"{program.resources} resources, {program.seconds:.2f} s of CPU, "
            f"{program.peak_mebibytes:.0f} MiB at most"
        )
        yield f"{program.voices} voices of {TENANTS} tenants", figure
    for fewer, more in zip([first, *others], others, strict=False):
        further = more.voices - fewer.voices
        seconds = (more.seconds - fewer.seconds) / further
        memory = (more.peak_mebibytes - fewer.peak_mebibytes) / further
        yield (
            f"each further voice, from {fewer.voices} to {more.voices}",
            f"{seconds * 1e3:.0f} ms, {memory:.2f} MiB",
        )


def declare(voices: int) -> Declared:
    """Declares everything and counts; a second object of one name would raise."""
    started = time.process_time()
    recording = record_program("staging", many_services(voices, TENANTS))
    seconds = time.process_time() - started
    objects = [
        (r.type, r.inputs["metadata"].get("namespace"), r.inputs["metadata"]["name"])
        for r in recording.registrations
        if "metadata" in r.inputs
    ]
    if len(set(objects)) < len(objects):
        raise ValueError("two resources are the same object")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIBIBYTES_PER_MEBIBYTE
    return Declared(voices, len(recording.registrations), seconds, peak)


def _in_its_own_process(voices: int) -> Declared:
    argv = [sys.executable, "-m", __spec__.name, str(voices)]
    done = subprocess.run(argv, text=True, capture_output=True, check=True)
    return Declared(**json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(vars(declare(int(sys.argv[1])))))
