"""How a long phase tells its user where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives short lines such as "3/8 helm 3.22.0: compiling"; called from any thread.

    A line replaces the one before it on a terminal and is printed on its own elsewhere.
    """

    def __call__(self, line: str, /) -> None: ...


def silent(line: str) -> None:
    """A `Progress` for callers that show nothing."""
    del line
