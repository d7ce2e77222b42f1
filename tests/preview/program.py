"""The program of an environment, run on mocks exactly as the engine runs it."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.stacks import ENCRYPTED, ROOT, as_engine_config, changed
from voicemesh.testing import EchoMocks, Recording, record

_AWS_OUTPUTS = {
    "aws:s3/bucket:Bucket": {"arn": "arn:aws:s3:::voicemesh-local"},
    "aws:kms/key:Key": {"arn": "arn:aws:kms:us-east-1:123456789012:key/1", "keyId": "1"},
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
        resource_mocks=EchoMocks(outputs=_AWS_OUTPUTS),
    )


def _run_as_the_engine_does() -> None:
    runpy.run_path(str(ROOT / "infra"), run_name="__main__")
