"""The wheel, installed once for all tests that need it so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.package import clean_install
from tests.package.clean_install import Installation


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_install.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return clean_install.install(wheel, tmp_path_factory.mktemp("clean") / "venv")
