"""What the tests that start an AWS server share."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from infra.local.waiting import wait_until

_LISTENING = re.compile(r"listening on (\S+)")
_SECONDS_TO_START = 30


def url_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where a server that was just started listens, once it does."""

    def missing() -> str | None:
        assert process.poll() is None, f"the AWS server ended: {log.read_text()}"
        return None if _LISTENING.search(log.read_text()) else "it does not listen"

    wait_until(missing, "the AWS server to start", _SECONDS_TO_START, log)
    found = _LISTENING.search(log.read_text())
    assert found
    return found[1]
