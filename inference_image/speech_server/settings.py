"""The server's settings, read from `SPEECH_*` environment variables."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, DirectoryPath, Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from speech_server.contract import HTTP_PORT

ENVIRONMENT_PREFIX = "SPEECH_"


class Settings(BaseSettings):
    """Immutable; a variable with the prefix that no field knows is refused by name."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    host: str = "0.0.0.0"  # noqa: S104  a pod's only way to be reached
    """Address to listen on."""

    port: int = Field(default=HTTP_PORT, ge=0, le=65535)
    """TCP port to listen on; 0: any free one."""

    max_characters: int = Field(default=4096, ge=1, le=100_000)
    """Longest text of one request, in characters. OpenAI's own limit is 4096."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    """Texts synthesised at the same time. With the bundled voice they take turns chunk by chunk, so
    that a long text does not keep a short one waiting; GLM-TTS makes them together, and has memory
    for so many."""

    queue_limit: int = Field(default=32, ge=0, le=10_000)
    """Requests that may wait for a turn; the next one is answered 429. 0: nobody waits."""

    unread_audio_mib: int = Field(default=64, ge=1)
    """Audio, in MiB, that clients may have left unread before new requests are answered 429.
    Synthesis never waits for a slow client; this bounds the memory which that costs, together with
    what the texts in synthesis still add (at most 14 MiB each at 4096 characters)."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long streams in flight may take to finish after SIGTERM; 0 cuts them at once. The pod's
    termination grace period must be longer."""

    engine: Literal["hibari", "glm_tts"] = "hibari"
    """What speaks: the bundled CPU voice, or GLM-TTS, for which the image needs torch."""

    model_directory: DirectoryPath | None = None
    """Folder with the engine's weights, complete and verified. The bundled voice has its own and
    reads none; GLM-TTS needs them, and its voices beside them."""

    sample_rate_hz: Annotated[Literal[24000, 32000], BeforeValidator(int)] = 24000
    """Of the audio. 32000 is GLM-TTS's only, with its vocoder for that rate."""

    voice_cache_mib: int = Field(default=1024, ge=0)
    """Memory of the device, in MiB, in which GLM-TTS keeps voices ready, at about 4 MiB each.
    Whoever asks for another one waits until it is made of its clip."""

    gateway_principal: str | None = Field(default=None, pattern=r"^[^/]+/ns/[^/]+/sa/[^/]+$")
    """Identity of the gateway's proxies, as in `cluster.local/ns/istio-ingress/sa/public-gateway`:
    identity headers count in requests that come from it. Whoever does not come through the mesh is
    refused then. Without it there is no gateway, and who does not is a caller without a name."""

    outputs_uri: str | None = Field(default=None, pattern=r"^(s3://[^/]+/(.+/)?|file:///.*)$")
    """Where audio goes that outlives its request: `s3://bucket/prefix/`, or `file:///folder/`; it
    must be able to write there. For engines: the server itself keeps nothing."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages to log."""

    @field_validator("sample_rate_hz")
    @classmethod
    def _has_a_vocoder(cls, rate: int, info: ValidationInfo) -> int:
        if rate != 24000 and info.data.get("engine") == "hibari":
            raise ValueError("the bundled voice speaks at 24000 Hz only")
        return rate

    @field_validator("outputs_uri")
    @classmethod
    def _can_be_written(cls, uri: str | None) -> str | None:
        folder = uri.removeprefix("file://") if uri and uri.startswith("file://") else None
        if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise ValueError(f"user {os.getuid()} cannot write to a folder {folder}")
        return uri

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _StrictEnvironment(settings_cls)


class UnknownVariablesError(ValueError):
    """The environment has variables with our prefix that mean nothing."""

    def __init__(self, names: list[str], known: list[str]) -> None:
        # Kubernetes injects these into every pod of a namespace with a Service named "speech…".
        injected = any("_SERVICE_" in name or "_PORT_" in name for name in names)
        hint = " Kubernetes adds such names: set enableServiceLinks: false." if injected else ""
        super().__init__(
            f"unknown environment variables: {', '.join(names)}.{hint} "
            f"Known ones are: {', '.join(known)}."
        )


class _StrictEnvironment(EnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        known = [ENVIRONMENT_PREFIX + name.upper() for name in self.settings_cls.model_fields]
        unknown = sorted(
            name
            for name in os.environ
            if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in known
        )
        if unknown:
            raise UnknownVariablesError(unknown, known)
        return super().__call__()
