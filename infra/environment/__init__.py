"""The typed configuration of an environment: one loader for program, tests and command line.

What a stack's configuration says is checked here, before any resource is declared: unknown keys and
wrong types (`section`), what components would refuse (`refusals`), what sections contradict each
other in (`consistency`), and quotas and nodes too small for their voices (`capacity`). Each
fault comes with the path of its key as `pulumi config` knows it.
"""

from infra.environment.loading import FaultyEnvironmentError, load, load_from_pulumi
from infra.environment.model import Environment, Layer

__all__ = ["Environment", "FaultyEnvironmentError", "Layer", "load", "load_from_pulumi"]
