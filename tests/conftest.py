"""Options that more than one suite knows."""

from __future__ import annotations

import hypothesis
import pytest

# How long an example takes says more of what runs beside it than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the long forms of the end-to-end tests"
    )
    parser.addoption(
        "--running",
        action="store_true",
        help="run end-to-end tests on the environment that is up, and leave it up",
    )
