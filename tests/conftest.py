"""Options that more than one suite knows."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the long forms of the end-to-end tests"
    )
    parser.addoption(
        "--running",
        action="store_true",
        help="run end-to-end tests on the environment that is up, and leave it up",
    )
