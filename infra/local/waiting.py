"""Waiting for a condition, with a reason when it does not come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from infra.local.errors import LocalEnvironmentError

_POLL_SECONDS = 0.1
_LOG_LINES = 15


def wait_until(
    missing: Callable[[], str | None],
    what: str,
    timeout_seconds: float,
    log: Path | None = None,
) -> None:
    """Waits until `missing` has nothing left to name.

    Args:
        missing: says what is still missing, or None when there is nothing.
        what: names the condition in the error, such as "the API server to be ready".
        timeout_seconds: how long to wait.
        log: where the reason may be found; its last lines become part of the error.

    Raises:
        LocalEnvironmentError: the time is over; names what is missing and shows the log's end.
    """
    deadline = time.monotonic() + timeout_seconds
    while still := missing():
        if time.monotonic() > deadline:
            raise LocalEnvironmentError(
                f"waited {timeout_seconds:g} s for {what}: {still}{log_end(log)}"
            )
        time.sleep(_POLL_SECONDS)


def log_end(log: Path | None) -> str:
    """The last lines of a log with its path, as the end of an error's message."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join([f"\nlast lines of {log}:", *(f"  {line[:300]}" for line in lines)])
