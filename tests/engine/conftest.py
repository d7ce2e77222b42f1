"""One control plane for all tests of the engine, and a stack for each test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import debian, toolbox
from infra.local.adapters.kubernetes_provider.api import Api

from .control_plane import connected, control_plane
from .engine import Stack


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    toolbox.ensure_tools(["pulumi", "helm", "kubernetes"])
    debian.ensure_packages(names=["etcd-server"])
    with control_plane(tmp_path_factory.mktemp("control-plane")) as path:
        yield path


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Iterator[Api]:
    with connected(kubeconfig) as client:
        yield client


@pytest.fixture
def stack(tmp_path: Path, kubeconfig: Path) -> Stack:
    return Stack(tmp_path / "project", kubeconfig)


@pytest.fixture
def home(api: Api, tmp_path: Path) -> str:
    """A namespace of the test's own, which it need not delete."""
    name = re.sub(r"[^a-z0-9]+", "-", tmp_path.name.lower()).strip("-")[:60]
    api.apply(
        api.kind("v1", "Namespace"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        force=True,
    )
    return name
