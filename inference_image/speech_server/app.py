"""The application: its routes, and how its errors look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from speech_server.audio import AudioFormat
from speech_server.contract import HEALTH_PATH, METRICS_PATH, READY_PATH, SPEECH_PATH, TTS_PATH
from speech_server.engine import Engine
from speech_server.errors import ApiError, InvalidRequestError, NotReadyError, error_body
from speech_server.identity import Caller, CallerIdentity
from speech_server.middleware import BodyLimit, RequestRecorder, error_response
from speech_server.records import RequestRecord
from speech_server.response import SpeechResponse
from speech_server.schema import SpeechBody, check_body
from speech_server.service import SpeechService, State
from speech_server.settings import Settings

# JSON may write a character outside the basic plane as two escapes of six bytes.
_JSON_BYTES_PER_CHARACTER = 12
_JSON_BYTES_BESIDE_TEXT = 16 * 1024


def create_app(settings: Settings, engine: Engine) -> FastAPI:
    """The service over an engine, which it warms up when it starts and closes when it stops.

    The running service is at `app.state.service`.
    """
    service = SpeechService(settings, engine)
    app = FastAPI(title="voicemesh speech server", docs_url=None, redoc_url=None, lifespan=_life)
    app.state.service = service
    app.include_router(_operations)
    app.include_router(_speech)
    app.add_exception_handler(RequestValidationError, _on_invalid_body)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(
        BodyLimit,
        max_bytes=_JSON_BYTES_BESIDE_TEXT + _JSON_BYTES_PER_CHARACTER * settings.max_characters,
    )
    app.add_middleware(CallerIdentity, gateway_principal=settings.gateway_principal)
    app.add_middleware(RequestRecorder, service=service)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    service: SpeechService = app.state.service
    warming_up = asyncio.create_task(service.warm_up())
    yield
    await service.close()
    warming_up.cancel()


async def _service(request: Request) -> SpeechService:
    return request.app.state.service


ServiceDependency = Annotated[SpeechService, Depends(_service)]

_speech = APIRouter()
_operations = APIRouter(include_in_schema=False)


@_speech.post(TTS_PATH, response_class=Response, operation_id="tts")
@_speech.post(
    SPEECH_PATH,
    response_class=Response,
    responses={200: {"content": {format_.media_type: {} for format_ in AudioFormat}}},
)
async def create_speech(
    body: SpeechBody, request: Request, service: ServiceDependency
) -> SpeechResponse:
    """Speak a text. The audio is streamed as it is made."""
    caller = Caller.of(request.scope)
    speech, audio_format = check_body(body, service.engine, service.settings.max_characters, caller)
    if service.state in (State.WARMING, State.FAILED):
        raise NotReadyError("the voice is still warming up.", code="not_ready")
    record = RequestRecord.of(request.scope)
    record.voice = speech.voice
    record.characters = len(speech.text)
    return SpeechResponse(service, speech, audio_format)


@_operations.get(HEALTH_PATH)
async def health() -> dict[str, str]:
    return {"status": "alive"}


@_operations.get(READY_PATH)
async def ready(service: ServiceDependency) -> dict[str, str]:
    if service.state is not State.READY:
        raise NotReadyError(f"the server is {service.state.value}.", code="not_ready")
    return {"status": "ready"}


@_operations.get(METRICS_PATH)
async def metrics(service: ServiceDependency) -> Response:
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _on_invalid_body(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return error_response(invalid_body_error(error))


def invalid_body_error(error: RequestValidationError) -> ApiError:
    """All faults of a body in one message; `param` names the first."""
    faults = [(".".join(map(str, fault["loc"][1:])), fault) for fault in error.errors()]
    field, first = faults[0]
    if first["type"] == "json_invalid":
        return InvalidRequestError("the body is not valid JSON.", code="invalid_json")
    messages = [
        f"'{name}' is not a known parameter"
        if fault["type"] == "extra_forbidden"
        else f"{name or 'body'}: {fault['msg'].lower()}"
        for name, fault in faults
    ]
    return InvalidRequestError(f"{'; '.join(messages)}.", code=first["type"], param=field or None)


async def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    body = error_body(f"{error.detail}.", "invalid_request_error", None, None)
    return JSONResponse(body, error.status_code, error.headers)
