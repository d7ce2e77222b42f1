from __future__ import annotations

from pathlib import Path

import pytest

from tests.preview.program import record_local
from tests.stacks import local_values
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
