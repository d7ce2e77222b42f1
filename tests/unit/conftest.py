from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def _has_loop(_loop: asyncio.AbstractEventLoop) -> None:
    """Outputs need one, and `asyncio.run` of another test leaves none behind."""
    asyncio.set_event_loop(_loop)
