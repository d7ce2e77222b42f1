"""What is mounted, as the kernel tells it."""

from __future__ import annotations

import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_points(mountinfo: str | None = None) -> list[Path]:
    """Where something is mounted, in order of mounting.

    Args:
        mountinfo: the text of /proc/<pid>/mountinfo; this process' own where it is not given.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    return [Path(_unescape(line.split()[4])) for line in text.splitlines()]


def _unescape(field: str) -> str:
    """proc(5) writes space, tab, newline and backslash as octal numbers."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
