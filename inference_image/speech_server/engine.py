"""What the server asks of a speech engine, and nothing else it may know of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]
"""Mono audio in [-1, 1]."""


class UnspeakableTextError(Exception):
    """The text itself cannot be spoken; the message is shown to the client and says why."""

    def __init__(self, message: str, *, code: str = "unspeakable_text") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Voice:
    """A voice that an engine speaks with."""

    name: str
    language: str
    """Name of the language in English, as told to clients: "English"."""
    scripts: frozenset[str]
    """Writing systems it can read, by the first word of their Unicode character names: "LATIN"."""


@dataclass(frozen=True)
class SpeechRequest:
    """One text to speak; checked by the server against the engine's voices and speed range."""

    text: str
    voice: str
    speed: float = 1.0
    """Pace; 1.0 is the voice's own."""


class Cancellation:
    """Tells an engine that nobody listens any more. Safe to read and set from any thread."""

    def __init__(self) -> None:
        self._requested = False

    def request(self) -> None:
        self._requested = True

    @property
    def requested(self) -> bool:
        return self._requested


class Engine(ABC):
    """Turns text into audio, chunk by chunk.

    The server constructs an engine cheaply, calls `warm_up` once in a worker thread, and then
    advances any number of streams at once, each from one thread at a time and at most
    `parallelism` of them in the same instant.
    """

    model: str
    """Name that clients may give as `model`."""
    sample_rate_hz: int
    speed_range: tuple[float, float]
    """Slowest and fastest pace, inclusive."""
    parallelism: int
    """Streams that profit from being advanced in the same instant, at least 1."""

    @abstractmethod
    def warm_up(self) -> None:
        """Load everything, so that the first request is as fast as the next. Blocks."""

    @abstractmethod
    def voices(self) -> Sequence[Voice]:
        """The voices, the default one first. Known before `warm_up`; never empty."""

    @abstractmethod
    def stream(
        self, request: SpeechRequest, cancellation: Cancellation
    ) -> Generator[Samples, None, None]:
        """Yield the audio of a request in order, each chunk as soon as it exists. Blocks.

        A chunk should take well under a second to make: a stream is only left, and another one
        served, between chunks. When cancelled, or closed between chunks, the generator ends early.

        Raises `UnspeakableTextError`, before the first chunk, for what no retry can cure.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what `warm_up` took. No stream is advanced afterwards."""
