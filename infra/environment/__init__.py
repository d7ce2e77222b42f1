"""The typed configuration of an environment: one loader for program, tests and command line."""

from infra.environment.model import *  # noqa: F403
