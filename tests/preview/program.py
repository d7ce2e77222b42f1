"""The program of an environment, run on mocks exactly as the engine runs it."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.mocks import MockResourceArgs

from tests.stacks import ENCRYPTED, PROJECT, ROOT, as_engine_config, changed
from voicemesh.testing import CloudMocks, Recording, SecretValue, record


class _CloudOfStack(CloudMocks):
    """A provider that makes up names which no other stack has, as Pulumi's do."""

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict]:
        id_, outputs = super().new_resource(args)
        return id_, {**_MADE_UP.get(args.typ, lambda _: {})(args.name), **outputs}


def _name(name: str) -> dict[str, Any]:
    return {"name": f"{name}-{pulumi.get_stack()}"}


_MADE_UP = {
    "aws:iam/role:Role": _name,
    "aws:ecr/repository:Repository": _name,
    "aws:ec2/launchTemplate:LaunchTemplate": lambda name: {**_name(name), "latestVersion": 1},
}


def record_local(values: Mapping[str, Any], kubeconfig: Path) -> Recording:
    """What the program declares for the embedded environment, with the given kubeconfig."""
    values = changed(values, "cluster", "kubeconfig", to=str(kubeconfig))
    return record_program("local", values, encrypted=ENCRYPTED)


def record_program(
    stack: str,
    values: Mapping[str, Any],
    *,
    encrypted: frozenset[str] = frozenset(),
    stacks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recording:
    """What the program declares for a configuration."""
    return record(
        _run_as_the_engine_does,
        stack=stack,
        config=as_engine_config(values, encrypted),
        stacks=stacks,
        resource_mocks=_CloudOfStack(),
    )


def refusal(stack: str, values: Mapping[str, Any]) -> tuple[str, Recording]:
    """Why the program refuses a configuration, and what it declared before it did."""
    reasons = []

    def refused() -> None:
        try:
            _run_as_the_engine_does()
        except pulumi.RunError as error:
            reasons.append(str(error))

    config = as_engine_config(values, ENCRYPTED)
    recording = record(refused, stack=stack, config=config)
    (reason,) = reasons
    return reason, recording


def as_referred_to(stack: str, recording: Recording) -> dict[str, dict[str, Any]]:
    """The outputs of a stack, for programs that refer to it."""
    outputs = {
        name: SecretValue(value) if name in recording.secret_exports else value
        for name, value in recording.exports.items()
    }
    return {f"organization/{PROJECT}/{stack}": outputs}


def _run_as_the_engine_does() -> None:
    runpy.run_path(str(ROOT / "infra"), run_name="__main__")
