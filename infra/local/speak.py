"""Speaks a sentence through the environment's public door and writes what was heard."""

from __future__ import annotations

import random
import ssl
import time
import wave
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import httpx
import tenacity

from infra.local import tokens
from infra.local.errors import LocalEnvironmentError
from voicemesh.contract import SPEECH_PATH

SAMPLE_RATE_HERTZ = 24_000
_BYTES_PER_SAMPLE = 2
_FIRST_AUDIO_BYTES = SAMPLE_RATE_HERTZ * _BYTES_PER_SAMPLE // 10


@dataclass(frozen=True)
class Utterance:
    """A sentence that was spoken.

    Attributes:
        text: the sentence.
        path: the WAV file, 16-bit mono at `SAMPLE_RATE_HERTZ`.
        first_audio_seconds: from the request until 100 ms of PCM had arrived.
        total_seconds: from the request until its end.
        audio_seconds: how long the audio plays.
    """

    text: str
    path: Path
    first_audio_seconds: float
    total_seconds: float
    audio_seconds: float


def sentences() -> list[str]:
    """English sentences of at least twelve words, for trying a voice."""
    return resources.files("infra.local").joinpath("sentences.txt").read_text().splitlines()


@dataclass(frozen=True)
class Door:
    """Where the service is reached from this machine.

    Attributes:
        host: the public name of the service, which its certificate carries.
        authority: PEM file of the certificate authority that signed it.
        address: where its TLS port is; the forwarder's, unless one is inside the network.
    """

    host: str
    authority: Path
    address: str = "127.0.0.1:8443"

    @property
    def url(self) -> str:
        """The address as a browser or curl would be given it: both know `*.localhost`."""
        return f"https://{self.host}:{self.address.rpartition(':')[2]}"

    def client(
        self, timeout_seconds: float = 60, caller: str | None = tokens.DEFAULT_CLIENT
    ) -> httpx.Client:
        """A client that goes to `address` whatever the resolver says of `host`.

        Args:
            timeout_seconds: of each step of a request.
            caller: client of the token issuer whose token is sent; None sends none.

        Raises:
            LocalEnvironmentError: the issuer gives no token.
        """
        context = ssl.create_default_context(cafile=str(self.authority))
        headers = {"Host": self.host}
        if caller is not None:
            headers["Authorization"] = f"Bearer {tokens.fetch_token(caller)}"
        return httpx.Client(
            base_url=f"https://{self.address}",
            headers=headers,
            verify=context,
            timeout=timeout_seconds,
            trust_env=False,
            event_hooks={"request": [self._name_server]},
        )

    def _name_server(self, request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = self.host


def speak(door: Door, text: str | None, path: Path) -> Utterance:
    """Speaks `text`, or a random sentence, through `door` into the WAV file `path`.

    A gateway may still be learning its routes, and the keys of tokens, just after `pulumi up`: for
    half a minute, refusals that are not about the request itself are tried again.

    Raises:
        LocalEnvironmentError: no audio came; names the status and what the service answered.
    """
    text = text or random.choice(sentences())  # noqa: S311  # nothing depends on it being secret
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_passing),
        stop=tenacity.stop_after_delay(30),
        wait=tenacity.wait_fixed(0.5),
        reraise=True,
    )
    try:
        with door.client() as client:
            pcm, first, total = retrying(_receive, client, text)
    except httpx.HTTPStatusError as error:
        answer = error.response
        raise LocalEnvironmentError(
            f"POST {SPEECH_PATH} answered {answer.status_code}: {answer.text[:500]}"
        ) from error
    except httpx.HTTPError as error:
        raise LocalEnvironmentError(f"POST {SPEECH_PATH} at {door.url} failed: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(_BYTES_PER_SAMPLE)
        file.setframerate(SAMPLE_RATE_HERTZ)
        file.writeframes(pcm)
    duration = len(pcm) / _BYTES_PER_SAMPLE / SAMPLE_RATE_HERTZ
    return Utterance(text, path, first, total, duration)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in {404, 429, 502, 503, 504}
    return isinstance(error, httpx.TransportError)


def _receive(client: httpx.Client, text: str) -> tuple[bytes, float, float]:
    """One request: its PCM, the seconds to the first 100 ms of it, and the seconds to its end."""
    started = time.monotonic()
    first: float | None = None
    pcm = bytearray()
    body = {"model": "tts-1", "voice": "heart", "input": text, "response_format": "pcm"}
    with client.stream("POST", SPEECH_PATH, json=body) as answer:
        if answer.is_error:
            answer.read()
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            pcm += chunk
            if first is None and len(pcm) >= _FIRST_AUDIO_BYTES:
                first = time.monotonic() - started
    total = time.monotonic() - started
    return bytes(pcm), first if first is not None else total, total
