"""The answer to a request for speech: audio that leaves as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from speech_server.admission import QueueFullError
from speech_server.audio import BYTES_PER_SAMPLE, AudioFormat, stream_header, wav_header
from speech_server.engine import SpeechRequest, UnspeakableTextError
from speech_server.errors import EngineFailedError, InvalidRequestError, OverloadedError
from speech_server.records import Outcome, RequestRecord
from speech_server.service import SpeechService, Synthesis

STALLED_CLIENT_SECONDS = 60.0
"""A client that takes nothing for so long has its connection cut; its unread audio is memory."""


class StreamBrokenError(Exception):
    """The audio ended early. Raised through the server, which then cuts the connection without
    the last chunk, so that no client takes the part for the whole."""


class SpeechResponse(Response):
    """Speaks when it is called. Errors before the first sample are raised as `ApiError`."""

    def __init__(
        self, service: SpeechService, request: SpeechRequest, audio_format: AudioFormat
    ) -> None:
        super().__init__(media_type=audio_format.media_type)
        self._service = service
        self._request = request
        self._format = audio_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        synthesis = self._start()
        self._service.open_requests += 1
        try:
            deliver = self._deliver_whole if scope["http_version"] == "1.0" else self._deliver
            if not await _while_connected(receive, deliver(synthesis, record, send)):
                record.outcome = Outcome.ABANDONED
        finally:
            self._service.open_requests -= 1
            synthesis.cancel()

    def _start(self) -> Synthesis:
        try:
            return self._service.start(self._request)
        except QueueFullError as error:
            raise OverloadedError(
                f"the server is busy: try again in {error.retry_after_seconds} s.",
                code="server_busy",
                retry_after_seconds=error.retry_after_seconds,
            ) from error

    async def _deliver(self, synthesis: Synthesis, record: RequestRecord, send: Send) -> None:
        parts = aiter(synthesis)
        part: bytes | None = await _first(parts)
        await _send_patiently(send, self._head())
        record.outcome = Outcome.BROKEN
        self._note_first_audio(record)
        header = stream_header(self._format, self._service.engine.sample_rate_hz)
        try:
            while part is not None:
                await _send_patiently(send, _body(header + part, more=True))
                self._note_audio(record, part)
                header = b""
                part = await anext(parts, None)
            await _send_patiently(send, _body(b"", more=False))
        except Exception as error:
            raise StreamBrokenError(f"{type(error).__name__} in mid-stream") from error
        record.outcome = Outcome.SERVED

    async def _deliver_whole(self, synthesis: Synthesis, record: RequestRecord, send: Send) -> None:
        """For HTTP/1.0, which has no chunks: a stream that breaks would look like one that ends."""
        parts = aiter(synthesis)
        pcm = await _first(parts)
        try:
            pcm += b"".join([part async for part in parts])
        except Exception as error:
            raise _engine_failed() from error
        is_wav = self._format is AudioFormat.WAV
        header = wav_header(self._service.engine.sample_rate_hz, len(pcm)) if is_wav else b""
        self._note_first_audio(record)
        await _send_patiently(send, self._head(len(header) + len(pcm)))
        await _send_patiently(send, _body(header + pcm, more=False))
        self._note_audio(record, pcm)
        record.outcome = Outcome.SERVED

    def _head(self, content_length: int | None = None) -> Message:
        headers = [
            (b"content-type", self._format.media_type.encode()),
            (b"cache-control", b"no-store"),
        ]
        if content_length is not None:
            headers.append((b"content-length", str(content_length).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}

    def _note_first_audio(self, record: RequestRecord) -> None:
        record.first_audio_seconds = record.age_seconds()
        self._service.metrics.first_audio_seconds.observe(record.first_audio_seconds)

    def _note_audio(self, record: RequestRecord, pcm: bytes) -> None:
        samples = len(pcm) // BYTES_PER_SAMPLE
        record.audio_seconds += samples / self._service.engine.sample_rate_hz


async def _first(parts: AsyncIterator[bytes]) -> bytes:
    """The first audio; what goes wrong before it can still be told."""
    try:
        return await anext(parts)
    except UnspeakableTextError as error:
        raise InvalidRequestError(str(error), code=error.code, param="input") from error
    except Exception as error:
        raise _engine_failed() from error


def _engine_failed() -> EngineFailedError:
    return EngineFailedError(
        "the speech engine failed: try again, and report the request id if it persists.",
        code="engine_failed",
    )


async def _send_patiently(send: Send, message: Message) -> None:
    async with asyncio.timeout(STALLED_CLIENT_SECONDS):
        await send(message)


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, and stop it when the client leaves; whether it was finished."""
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            return False
        worker.result()
        return True
    finally:
        worker.cancel()
        watcher.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
