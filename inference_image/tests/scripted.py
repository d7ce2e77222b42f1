"""An engine whose every chunk waits for the test's word, and a server that runs in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from types import TracebackType

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from speech_server.engine import Cancellation, Engine, Samples, SpeechRequest, Voice
from speech_server.server import SpeechServer
from speech_server.service import State
from speech_server.settings import Settings

SAMPLE_RATE_HZ = 24_000
CHUNK_SECONDS = 1
CHUNK_BYTES = 2 * SAMPLE_RATE_HZ * CHUNK_SECONDS
WAIT_SECONDS = 60.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.005)


class ScriptedEngine(Engine):
    """Says one second of audio for every word, each when the test plays it.

    The word "silence" makes none, "crash" fails, and the warm-up sentence plays by itself.
    """

    model = "scripted"
    sample_rate_hz = SAMPLE_RATE_HZ
    speed_range = (0.25, 4.0)

    def __init__(self, parallelism: int = 8) -> None:
        self.parallelism = parallelism
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.warmed = threading.Event()
        self.warmed.set()
        self.warm_up_error: Exception | None = None
        self.is_closed = False
        self._permits = threading.Semaphore(0)
        self._plays_all = threading.Event()

    def play(self, chunks: int = 1) -> None:
        """Let the streams that wait make so many chunks in all."""
        self._permits.release(chunks)

    def play_all(self) -> None:
        self._plays_all.set()
        self.warmed.set()

    def warm_up(self) -> None:
        self.warmed.wait()
        if self.warm_up_error:
            raise self.warm_up_error

    def voices(self) -> Sequence[Voice]:
        return [
            Voice("ann", "English", frozenset({"LATIN"})),
            Voice("mei", "Chinese and English", frozenset({"LATIN", "CJK"})),
        ]

    def stream(
        self, request: SpeechRequest, cancellation: Cancellation
    ) -> Generator[Samples, None, None]:
        if request.text == "1 2 3.":
            yield np.full(100, 0.5, np.float32)
            return
        self.started.append(request.text)
        try:
            for word in request.text.split():
                if not self._may_play(cancellation):
                    return
                if word == "crash":
                    raise OSError("the accelerator fell off the bus")
                seconds = 0 if word == "silence" else CHUNK_SECONDS
                yield np.full(SAMPLE_RATE_HZ * seconds, 0.5, np.float32)
        finally:
            self.stopped.append(request.text)

    def close(self) -> None:
        self.is_closed = True

    def _may_play(self, cancellation: Cancellation) -> bool:
        while not self._plays_all.is_set() and not self._permits.acquire(timeout=0.005):
            if cancellation.requested:
                return False
        return not cancellation.requested


class RunningServer:
    """A real server on a loopback port; entered, it is ready (unless its engine waits)."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        own = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
        self.server = SpeechServer(own, engine)
        self._thread = threading.Thread(target=self.server.run)

    @property
    def port(self) -> int:
        return self.server.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RunningServer:
        self._thread.start()
        eventually(lambda: self.server.started, "the server listens")
        engine = self.server.service.engine
        if not isinstance(engine, ScriptedEngine) or engine.warmed.is_set():
            eventually(self._is_settled, "the engine is warm")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.should_exit = True
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT_SECONDS, trust_env=False)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric as a scraper sees it."""
        with self.client() as client:
            families = text_string_to_metric_families(client.get("/metrics").text)
        for family in families:
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        raise AssertionError(f"/metrics has no {name} {labels}")

    def _is_settled(self) -> bool:
        return self.server.service.state is not State.WARMING
