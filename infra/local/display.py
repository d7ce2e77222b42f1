"""How the command line shows its work: one line per phase, with what is being done in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from infra.local.progress import Progress

_PLAIN_INTERVAL_SECONDS = 5.0

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@contextmanager
def phase(title: str) -> Iterator[Progress]:
    """Shows a phase of a command; it has failed unless its block ends without an exception.

    On a terminal the lines that it reports replace each other; elsewhere they are printed, at most
    one every five seconds.
    """
    started = time.monotonic()
    mark = "[red]✗[/red]"
    try:
        if console.is_terminal:
            with console.status(title) as status:
                yield lambda line: status.update(f"{title}: {line}")
        else:
            console.print(f"… {title}")
            yield _throttled(title)
        mark = "[green]✓[/green]"
    finally:
        console.print(f"{mark} {title} [dim]({time.monotonic() - started:.1f} s)[/dim]")


def _throttled(title: str) -> Progress:
    last = 0.0

    def show(line: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            console.print(f"  {title}: {line}", markup=False)

    return show
