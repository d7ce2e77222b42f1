"""The program of an environment, run on mocks exactly as the engine runs it."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.stacks import ROOT, as_engine_config, changed
from voicemesh.testing import EchoMocks, Recording, record

_AWS_OUTPUTS = {
    "aws:s3/bucket:Bucket": {"arn": "arn:aws:s3:::voicemesh-local"},
    "aws:kms/key:Key": {"arn": "arn:aws:kms:us-east-1:123456789012:key/1", "keyId": "1"},
}


def record_program(values: Mapping[str, Any], kubeconfig: Path, stack: str = "local") -> Recording:
    """What the program declares for a configuration, on a cluster with the given kubeconfig."""
    config = as_engine_config(changed(values, "cluster", "kubeconfig", to=str(kubeconfig)))
    return record(
        _run_as_the_engine_does,
        stack=stack,
        config=config,
        resource_mocks=EchoMocks(outputs=_AWS_OUTPUTS),
    )


def _run_as_the_engine_does() -> None:
    runpy.run_path(str(ROOT / "infra"), run_name="__main__")
