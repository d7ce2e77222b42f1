"""Running the machine's own commands, with their complaint in the error."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from infra.local.errors import LocalEnvironmentError


def run_command(
    argv: Sequence[str], what: str, stdin: str = "", timeout_seconds: float = 60
) -> str:
    """Runs a command and returns what it printed.

    Args:
        argv: the command.
        what: names the step in the error, such as "making the bridge vm0".
        stdin: what the command reads.
        timeout_seconds: how long it may take.

    Raises:
        LocalEnvironmentError: it failed, is missing or took too long; carries what it said.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
    except FileNotFoundError as error:
        raise LocalEnvironmentError(f"{what}: {argv[0]} is not on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise LocalEnvironmentError(
            f"{what}: {argv[0]} did not end within {timeout_seconds:g} s"
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise LocalEnvironmentError(f"{what}: {argv[0]} ended with {done.returncode}: {said}")
    return done.stdout
