"""The body of a request for speech, and what of it this server can do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from speech_server.audio import AudioFormat
from speech_server.engine import Engine, SpeechRequest, UnspeakableTextError, Voice
from speech_server.errors import InvalidRequestError, NotFoundError
from speech_server.identity import Caller
from speech_server.text import check_text

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names that programs written for OpenAI send; they mean the engine that is there."""


class _UnservedFormat(StrEnum):
    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"


def _voice_name(value: Any) -> Any:
    """The name in OpenAI's object form, `{"id": "heart"}`; anything else as it is."""
    return value["id"] if isinstance(value, dict) and value.keys() == {"id"} else value


class SpeechBody(BaseModel):
    """OpenAI's body; `model` and `voice` may be left out, `response_format` defaults to wav."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    input: str
    model: str | None = None
    voice: Annotated[str | None, BeforeValidator(_voice_name)] = None
    response_format: str = AudioFormat.WAV.value
    speed: float = 1.0
    stream_format: str = "audio"
    instructions: str | None = None


def check_body(
    body: SpeechBody, engine: Engine, max_characters: int, caller: Caller
) -> tuple[SpeechRequest, AudioFormat]:
    """What to speak and how to send it.

    Raises:
        ApiError: the engine cannot do what the body asks for, or the caller may not; names field,
            value and fix.
    """
    _check_model(body.model, engine)
    voice = _voice(body.voice, engine, caller)
    audio_format = _audio_format(body.response_format)
    _check_speed(body.speed, engine)
    _check_options(body)
    try:
        text = check_text(body.input, voice, max_characters)
    except UnspeakableTextError as error:
        raise InvalidRequestError(str(error), code=error.code, param="input") from error
    return SpeechRequest(text, voice.name, body.speed), audio_format


def _check_model(name: str | None, engine: Engine) -> None:
    if name is not None and name not in (engine.model, *OPENAI_MODELS):
        raise NotFoundError(
            f"model '{_shown(name)}' is not served here: use '{engine.model}'.",
            code="model_not_found",
            param="model",
        )


def _voice(name: str | None, engine: Engine, caller: Caller) -> Voice:
    voices = {voice.name: voice for voice in engine.voices()}
    name = next(iter(voices)) if name is None else name
    # Before whether it exists: which reference voices there are is told to who may use them.
    caller.require(preset=name in voices, voice=_shown(name))
    if name not in voices:
        raise InvalidRequestError(
            f"voice '{_shown(name)}' is unknown: use one of {', '.join(voices)}.",
            code="unknown_voice",
            param="voice",
        )
    return voices[name]


def _audio_format(name: str) -> AudioFormat:
    served = ", ".join(AudioFormat)
    if name in set(_UnservedFormat):
        raise InvalidRequestError(
            f"response_format '{name}' is not served yet: use one of {served}.",
            code="unsupported_response_format",
            param="response_format",
        )
    if name not in set(AudioFormat):
        raise InvalidRequestError(
            f"response_format '{_shown(name)}' is unknown: use one of {served}.",
            code="unknown_response_format",
            param="response_format",
        )
    return AudioFormat(name)


def _check_speed(speed: float, engine: Engine) -> None:
    slowest, fastest = engine.speed_range
    if not slowest <= speed <= fastest:
        raise InvalidRequestError(
            f"speed {speed} is out of range: it must be from {slowest} to {fastest}.",
            code="speed_out_of_range",
            param="speed",
        )


def _check_options(body: SpeechBody) -> None:
    if body.stream_format != "audio":
        raise InvalidRequestError(
            f"stream_format '{_shown(body.stream_format)}' is not served: use audio.",
            code="unsupported_stream_format",
            param="stream_format",
        )
    if body.instructions:
        raise InvalidRequestError(
            "instructions are not followed by this voice: leave them out.",
            code="unsupported_instructions",
            param="instructions",
        )


def _shown(value: str) -> str:
    return value if len(value) <= 64 else f"{value[:64]}…"
