"""Brings the environment up once for all end-to-end tests, and takes it down after the last."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from infra.local.paths import CHECKOUT
from tests.e2e.environment import Environment, local
from tests.e2e.figures import pytest_terminal_summary
from tests.e2e.lab import lab, without_lab

__all__ = ["lab", "pytest_terminal_summary", "without_lab"]

# What breaks the environment on purpose comes after what needs it whole.
_LAST = ["test_lifecycle", "test_recovery", "test_teardown"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "late: joins what a test before has begun, after the others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> tuple[bool, int, bool]:
        name = item.path.stem
        place = _LAST.index(name) + 1 if name in _LAST else 0
        return "e2e" in item.path.parts, place, item.get_closest_marker("late") is not None

    items.sort(key=rank)


@pytest.fixture(scope="session")
def hosted(pytestconfig: pytest.Config) -> Iterator[None]:
    """A started environment, with its progress on the terminal."""
    if pytestconfig.getoption("--running"):
        yield
        return
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        up = subprocess.run([sys.executable, "-m", "infra.local", "up"], cwd=CHECKOUT, check=False)
    if up.returncode:
        pytest.exit(
            f"the end-to-end tests need the embedded environment, and `make up` ended with exit "
            f"code {up.returncode} (its message is above); `make test-fast` runs everything else",
            returncode=1,
        )
    yield
    local("down")


@pytest.fixture
def environment(hosted: None) -> Environment:
    """The environment, whole and speaking."""
    return Environment.running()
