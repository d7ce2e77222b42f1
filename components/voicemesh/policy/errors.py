"""Why a program could not be checked."""

from __future__ import annotations


class GateError(Exception):
    """There is no verdict; the message says why, and what to do.

    - `ConfigurationError`: a file of project, stack or policy pack cannot be used.
    - `ProgramError`: the Pulumi program failed, as its preview would.
    - `PackError`: the policy pack did not start, or failed.
    """


class ConfigurationError(GateError):
    """A file of project, stack or policy pack is missing or faulty; names it, and the fix."""


class ProgramError(GateError):
    """The Pulumi program failed; carries what it reported."""


class PackError(GateError):
    """The policy pack did not start, or a policy of it failed; carries what it reported."""
