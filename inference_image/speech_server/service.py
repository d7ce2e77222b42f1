"""One engine at work for many requests: warm-up, turns, streams, and the way down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TypeVar

from speech_server.admission import Admission, QueueFullError, Turn
from speech_server.audio import BYTES_PER_SAMPLE, encode_pcm16
from speech_server.engine import (
    Cancellation,
    Engine,
    Samples,
    SpeechRequest,
    UnspeakableTextError,
)
from speech_server.metrics import Metrics
from speech_server.settings import Settings

T = TypeVar("T")

_CLOSE_SECONDS = 5.0
_logger = logging.getLogger(__name__)


class State(Enum):
    WARMING = "warming up"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed to warm up"


class Synthesis:
    """The audio of one request, in PCM, between the engine that makes it and the client.

    The engine never waits for the client. Iterate over it once; `cancel` when done or when nobody
    listens any more.
    """

    def __init__(self, count_unread: Callable[[int], None], give_up: Callable[[], None]) -> None:
        self.cancellation = Cancellation()
        self._count_unread = count_unread
        self._give_up = give_up
        self._parts: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def put(self, pcm: bytes) -> None:
        if not self.cancellation.requested:
            self._count_unread(len(pcm))
            self._parts.put_nowait(pcm)

    def end(self, error: Exception | None = None) -> None:
        """No more audio follows; with an error, because the engine failed."""
        self._parts.put_nowait(error)

    def cancel(self) -> None:
        """Leave the line, let the engine stop at its next chunk, forget what was not read."""
        self.cancellation.request()
        self._give_up()
        while not self._parts.empty():
            part = self._parts.get_nowait()
            if isinstance(part, bytes):
                self._count_unread(-len(part))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            if isinstance(part, Exception):
                raise part
            self._count_unread(-len(part))
            yield part


class SpeechService:
    """Advances an engine's streams in turns, on a few worker threads. For one event loop."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.metrics = Metrics()
        self.state = State.WARMING
        self.open_requests = 0
        """Requests for speech that are not answered in full; a drain waits for them."""
        self._unread_bytes = 0
        self._admission = Admission(settings.concurrency, settings.queue_limit)
        self._threads = ThreadPoolExecutor(engine.parallelism, thread_name_prefix="engine")
        self._running: dict[asyncio.Task[None], Synthesis] = {}
        self.metrics.queue_depth.set_function(lambda: self._admission.waiting)
        self.metrics.running.set_function(lambda: self._admission.running)
        self.metrics.unread_audio_bytes.set_function(lambda: self._unread_bytes)
        self.metrics.ready.set_function(lambda: self.state is State.READY)

    async def warm_up(self) -> None:
        """Load the engine and speak with it; only then is the service ready."""
        started = time.monotonic()
        try:
            await self._in_thread(self._warm_up_engine)
        except Exception:
            self.state = State.FAILED
            _logger.exception("engine %s failed to warm up", self.engine.model)
            return
        if self.state is State.WARMING:
            self.state = State.READY
        _logger.info("engine %s ready after %.2f s", self.engine.model, time.monotonic() - started)

    def start(self, request: SpeechRequest) -> Synthesis:
        """Begin to speak a request, now or when its turn comes.

        Raises:
            QueueFullError: too many wait, or clients have left too much audio unread.
        """
        if self._unread_bytes >= self.settings.unread_audio_mib * 2**20:
            raise QueueFullError(self._admission.retry_after_seconds())
        turn = self._admission.enter()
        synthesis = Synthesis(self._count_unread, lambda: self._admission.give_up(turn))
        task = asyncio.create_task(self._speak(request, synthesis, turn))
        self._running[task] = synthesis
        task.add_done_callback(self._running.pop)
        self.metrics.characters.inc(len(request.text))
        return synthesis

    def begin_drain(self) -> None:
        """Be unready from now on; requests that still arrive are served."""
        if self.state is not State.FAILED:
            self.state = State.DRAINING

    async def close(self) -> None:
        """Stop what still runs and release the engine."""
        self.begin_drain()
        for synthesis in self._running.values():
            synthesis.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=_CLOSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._in_thread(self.engine.close), _CLOSE_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _speak(self, request: SpeechRequest, synthesis: Synthesis, turn: Turn) -> None:
        if not await turn.granted():
            return
        started = time.monotonic()
        try:
            await self._run_stream(request, synthesis)
        except UnspeakableTextError as error:
            synthesis.end(error)
        except Exception as error:
            _logger.exception("engine %s failed in a stream", self.engine.model)
            synthesis.end(error)
        else:
            synthesis.end()
        finally:
            self._admission.release(time.monotonic() - started)

    async def _run_stream(self, request: SpeechRequest, synthesis: Synthesis) -> None:
        stream = self.engine.stream(request, synthesis.cancellation)
        spoken_bytes = 0
        try:
            while not synthesis.cancellation.requested:
                pcm = await self._in_thread(lambda: self._advance(stream))
                if pcm is None:
                    break
                if pcm:
                    spoken_bytes += len(pcm)
                    synthesis.put(pcm)
        finally:
            await self._in_thread(stream.close)
        if not spoken_bytes:
            raise UnspeakableTextError("the voice made no audio of this input.", code="no_audio")

    def _advance(self, stream: Generator[Samples, None, None]) -> bytes | None:
        """The next chunk of a stream, perhaps an empty one, or None at its end; in a thread."""
        started = time.monotonic()
        samples = next(stream, None)
        pcm = None if samples is None else encode_pcm16(samples)
        self.metrics.synthesis_seconds.inc(time.monotonic() - started)
        if pcm is not None:
            self.metrics.audio_seconds.inc(len(pcm) / BYTES_PER_SAMPLE / self.engine.sample_rate_hz)
        return pcm

    def _warm_up_engine(self) -> None:
        self.engine.warm_up()
        voice = self.engine.voices()[0]
        stream = self.engine.stream(SpeechRequest("1 2 3.", voice.name), Cancellation())
        if not sum(len(samples) for samples in stream):
            raise RuntimeError(f"voice '{voice.name}' made no audio when warming up")

    def _count_unread(self, change_bytes: int) -> None:
        self._unread_bytes += change_bytes

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
