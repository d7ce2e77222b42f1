"""The one error that the embedded environment shows to its user."""

from __future__ import annotations


class LocalEnvironmentError(Exception):
    """The environment cannot go on.

    Args:
        message: what was being done and what went wrong, with names and values.
        fix: what the user can do about it; empty where there is nothing to do but read the log.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message
