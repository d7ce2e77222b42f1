"""The Pulumi program: load the environment, build it, export its outputs."""

import pulumi

from infra.composition import build
from infra.environment import FaultyEnvironmentError, load_from_pulumi
from voicemesh import ArgumentsError


def main() -> None:
    """Declares everything, or ends with the faults of the configuration and nothing declared."""
    try:
        outputs = build(load_from_pulumi())
    except (FaultyEnvironmentError, ArgumentsError) as error:
        raise pulumi.RunError(str(error)) from error
    for name, value in outputs.items():
        pulumi.export(name, value)


main()
