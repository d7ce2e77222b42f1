"""Fixtures of the speech server's tests. Servers listen on the loopback, on a free port."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import httpx
import pytest

from inference_image.tests.scripted import RunningServer, ScriptedEngine
from speech_server.engine import Engine
from speech_server.engines.hibari import HibariEngine
from speech_server.settings import ENVIRONMENT_PREFIX, Settings

StartServer = Callable[..., RunningServer]

# The engine's tests have an environment of their own, with torch.
collect_ignore = [] if find_spec("torch") else ["glm_tts"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.play_all()


@pytest.fixture
def start(engine: ScriptedEngine) -> Iterator[StartServer]:
    """Starts servers over the scripted engine with the given settings; stops them afterwards."""
    with ExitStack() as stack:

        def start(other_engine: Engine | None = None, **settings: object) -> RunningServer:
            server = RunningServer(Settings.model_validate(settings), other_engine or engine)
            return stack.enter_context(server)

        yield start
        engine.play_all()


@pytest.fixture(scope="session")
def speaking() -> Iterator[RunningServer]:
    """A server over the real CPU voice."""
    with RunningServer(Settings(max_characters=2000), HibariEngine()) as server:
        yield server


@pytest.fixture
def client(speaking: RunningServer) -> Iterator[httpx.Client]:
    with speaking.client() as client:
        yield client
