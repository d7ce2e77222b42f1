from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.preview.program import as_referred_to, record_local, record_program
from tests.stacks import CLUSTER_OF, STACKS, local_values, stack_values
from voicemesh.testing import Recording

KUBECONFIG = "apiVersion: v1\nkind: Config\n# token: kubeconfig-token\n"


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    path.write_text(KUBECONFIG)
    return path


@pytest.fixture(scope="session")
def local(kubeconfig: Path) -> Recording:
    """Everything that the embedded environment declares."""
    return record_local(local_values(), kubeconfig)


@pytest.fixture(scope="session")
def environments(local: Recording) -> Mapping[str, Recording]:
    """Everything that each environment declares, by its name."""
    recordings = {"local": local}
    for stack in STACKS:
        if stack not in recordings:
            owner = CLUSTER_OF.get(stack)
            stacks = as_referred_to(owner, recordings[owner]) if owner else None
            recordings[stack] = record_program(stack, stack_values(stack), stacks=stacks)
    return recordings
