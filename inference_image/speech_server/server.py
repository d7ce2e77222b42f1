"""The process: listens, and leaves only when the streams in flight have ended."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn

from speech_server.app import create_app
from speech_server.engine import Engine
from speech_server.service import SpeechService, State
from speech_server.settings import Settings

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CUT_SECONDS = 1
_KEEP_ALIVE_SECONDS = 2 * 3600
"""Longer than a proxy keeps a connection that nobody uses (Envoy: an hour). Whoever closes it first
must not be the server: a request that is on its way to it then would be lost."""
_QUIET_SECONDS = 1.0
"""After this long without a request, every proxy knows that this pod goes."""


async def serve(settings: Settings, engine: Engine) -> int:
    """Run the service until it is told to stop; the process's exit code."""
    server = SpeechServer(settings, engine)
    await server.serve()
    return 1 if server.service.state is State.FAILED else 0


class SpeechServer(uvicorn.Server):
    """Stays up after SIGTERM, unready, until its streams have ended or `drain_seconds` are over.

    Clients that have not noticed yet are still served in that time, and asked to leave: it does not
    go as long as they come, for a request on a connection that it closes would be lost.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        app = create_app(settings, engine)
        self.service: SpeechService = app.state.service
        self._drain_seconds = settings.drain_seconds
        self._drain_until: float | None = None
        self._last_request = 0.0
        self._requests = 0
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_CUT_SECONDS,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain; told again, stop at once."""
        if self._drain_until is not None:
            self.should_exit = True
            return
        self.service.begin_drain()
        self._last_request = time.monotonic()
        self._drain_until = self._last_request + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        stop = await super().on_tick(counter)
        return stop or self.service.state is State.FAILED or self._is_drained()

    def _is_drained(self) -> bool:
        if self._drain_until is None:
            return False
        now = time.monotonic()
        if self._requests != self.server_state.total_requests:
            self._requests = self.server_state.total_requests
            self._last_request = now
        quiet = now - self._last_request >= _QUIET_SECONDS
        return now >= self._drain_until or (quiet and self.service.open_requests == 0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without raising them again at the end: a drain exits with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
