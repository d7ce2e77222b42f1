"""The Pulumi program: load the environment, build it, export its outputs."""

import os
import sys

# The engine puts this folder on the path, where `platform.py` would hide Python's own module.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]

import pulumi  # noqa: E402
from voicemesh import ArgumentsError  # noqa: E402

from infra.environment import FaultyEnvironmentError, load_from_pulumi  # noqa: E402
from infra.platform import build  # noqa: E402


def main() -> None:
    """Declares everything, or ends with the faults of the configuration and nothing declared."""
    try:
        outputs = build(load_from_pulumi())
    except (FaultyEnvironmentError, ArgumentsError) as error:
        raise pulumi.RunError(str(error)) from error
    for name, value in outputs.items():
        pulumi.export(name, value)


main()
