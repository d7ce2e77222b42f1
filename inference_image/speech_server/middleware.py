"""What happens around every request: its id, its size, its errors, its one line in the log."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speech_server.contract import REQUEST_ID_HEADER, SPEECH_PATH, TTS_PATH
from speech_server.errors import ApiError, PayloadTooLargeError
from speech_server.identity import Caller
from speech_server.records import Outcome, RequestRecord, outcome_of_status
from speech_server.service import SpeechService, State

SPEECH_PATHS = frozenset({SPEECH_PATH, TTS_PATH})

_logger = logging.getLogger(__name__)


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


class RequestRecorder:
    """Gives each request an id and each error its form; counts and logs how speech ended."""

    def __init__(self, app: ASGIApp, service: SpeechService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord.attach(scope, Headers(scope=scope).get(REQUEST_ID_HEADER))
        started = False

        async def send_recorded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._add_headers(MutableHeaders(scope=message), record)
                if message["status"] >= 400:
                    record.outcome = outcome_of_status(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        except Exception as error:
            if started:
                raise
            if not isinstance(error, ApiError):
                _logger.exception("request %s failed", record.request_id)
                error = ApiError("the server failed: try again.", code="internal_error")
            await error_response(error)(scope, receive, send_recorded)
        finally:
            if scope["path"] in SPEECH_PATHS:
                self._conclude(record, Caller.known(scope))

    def _add_headers(self, headers: MutableHeaders, record: RequestRecord) -> None:
        headers[REQUEST_ID_HEADER] = record.request_id
        if self._service.state is State.DRAINING:
            headers["connection"] = "close"

    def _conclude(self, record: RequestRecord, caller: Caller | None) -> None:
        self._service.metrics.requests.labels(record.outcome).inc()
        level = logging.INFO
        if record.outcome in (Outcome.FAILED, Outcome.BROKEN):
            level = logging.ERROR
        _logger.log(
            level,
            "request=%s outcome=%s tenant=%s via=%s voice=%s characters=%d"
            " first_audio_s=%s audio_s=%.2f total_s=%.3f",
            record.request_id,
            record.outcome.value,
            (caller and caller.tenant) or "-",
            (caller and caller.way.value) or "-",
            record.voice or "-",
            record.characters,
            "-" if record.first_audio_seconds is None else f"{record.first_audio_seconds:.3f}",
            record.audio_seconds,
            record.age_seconds(),
        )


class BodyLimit:
    """Reads a request's body before the application does, and no more of it than allowed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            RequestRecord.of(scope).outcome = Outcome.ABANDONED
            return
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_again, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or None from a client that left before its end."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                raise PayloadTooLargeError(
                    f"the request's body is larger than {self._max_bytes} bytes.",
                    code="body_too_large",
                )
        return bytes(body)
