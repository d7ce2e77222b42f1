"""Errors that a user can do something about."""

from __future__ import annotations


class UsageError(Exception):
    """A command cannot do its work; the message says why, and what to do."""
