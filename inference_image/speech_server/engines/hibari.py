"""A small English voice that runs on a CPU: hibari-tts (Apache-2.0) with its bundled voice."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Generator, Iterator, Sequence

import numpy as np
from hibari import SAMPLE_RATE, Hibari
from hibari.voices import VOICES

from speech_server.engine import (
    Cancellation,
    Engine,
    Samples,
    SpeechRequest,
    UnspeakableTextError,
    Voice,
)

FIRST_PIECE_PHONEMES = 60
"""About 4 s of audio, made in 0.05 s: what a listener waits for, if a clause ends there."""
PIECE_PHONEMES = 200
"""About 13 s of audio. hibari's own limit of 400 keeps other streams waiting for half a second."""

LONGEST_AUDIO_SECONDS = 600.0
"""Bounds what one text may cost: 4096 characters last 270 s as prose, but 45 minutes as digits."""

_SECONDS_PER_PHONEME = 0.062
_CLAUSE_END = re.compile(r"(?<=[,;:—])\s+")
_WORD_SOUND = re.compile(r"[^\W\d_]")
# hibari names numbers up to decillions and raises IndexError above.
_LONG_NUMBER = re.compile(r"\d[\d,]{30,}")
# Its network for unknown words reads the first 24 letters and drops the rest.
_LONG_WORD = re.compile(r"([^\W\d_]{24})(?=[^\W\d_])")
# It needs cubic time for the parts of a chunk without spaces: "a-a-a-…".
_CHUNK = re.compile(r"\S{17,}")
_CHUNK_PART = re.compile(r"[A-Z]?[^\WA-Z\d_]+|[A-Z]+|\d+|[\W_]")
_CHUNK_PARTS = 16
# It takes superscript, subscript and circled digits for numbers and raises ValueError; it knows
# these two as "squared" and "cubed".
_KNOWN_RAISED_DIGITS = "²³"
_REPEATED_SYMBOL = re.compile(r"([^\w\s])\1{3,}")

_logger = logging.getLogger(__name__)


class HibariEngine(Engine):
    """About a hundred times as fast as speech on one core: phonemes first, then piece by piece."""

    model = "hibari"
    sample_rate_hz = SAMPLE_RATE
    speed_range = (0.5, 2.0)

    def __init__(self) -> None:
        # More than two threads add nothing: a third of the work holds the interpreter lock.
        self.parallelism = min(2, len(os.sched_getaffinity(0)))
        self._hibari: Hibari | None = None

    def voices(self) -> Sequence[Voice]:
        bundled = [name for name, voice in VOICES.items() if voice.get("bundled")]
        return [Voice(name, "English", frozenset({"LATIN"})) for name in bundled]

    def warm_up(self) -> None:
        hibari = Hibari(voice=self.voices()[0].name)
        # A word outside the lexicon, so that the network for unknown words is loaded too.
        if not len(hibari("Warming up the voicemesh.")):
            raise RuntimeError("hibari made no audio of its warm-up sentence")
        self._hibari = hibari

    def stream(
        self, request: SpeechRequest, cancellation: Cancellation
    ) -> Generator[Samples, None, None]:
        if self._hibari is None:
            raise RuntimeError("stream was called before warm_up")
        noise = np.random.default_rng()
        for piece in _plan(self._hibari, request):
            if cancellation.requested:
                return
            yield self._hibari.from_ids(self._hibari.ids(piece), request.speed, noise)

    def close(self) -> None:
        self._hibari = None


def readable(text: str) -> str:
    """The text without what hibari's front end fails on or takes excessive time for."""
    text = _REPEATED_SYMBOL.sub(r"\1\1\1", "".join(map(_plain_digit, text)))
    text = _LONG_NUMBER.sub(lambda match: " ".join(match[0].replace(",", "")), text)
    text = _LONG_WORD.sub(r"\1 ", text)
    return _CHUNK.sub(lambda match: _loosened(match[0]), text)


def split_phonemes(phonemes: str, preferred: int, limit: int) -> Iterator[str]:
    """Pieces of whole clauses, of `preferred` phonemes if possible. A clause longer than `limit` is
    cut after a word, else anywhere, which is heard."""
    piece = ""
    for clause in _CLAUSE_END.split(phonemes):
        if piece and len(piece) + 1 + len(clause) > preferred:
            yield piece
            piece = ""
        piece = f"{piece} {clause}" if piece else clause
        while len(piece) > limit:
            cut = piece.rfind(" ", 1, limit + 1)
            cut = limit if cut < 0 else cut
            yield piece[:cut]
            piece = piece[cut:].lstrip()
    if piece:
        yield piece


def _plain_digit(character: str) -> str:
    if character.isascii() or not character.isdigit() or character in _KNOWN_RAISED_DIGITS:
        return character
    return f" {unicodedata.digit(character)} "


def _loosened(chunk: str) -> str:
    """A chunk without spaces; if it has very many parts, with spaces let in."""
    parts = _CHUNK_PART.findall(chunk)
    groups = (parts[i : i + _CHUNK_PARTS] for i in range(0, len(parts), _CHUNK_PARTS))
    return " ".join("".join(group) for group in groups)


def _sentences(hibari: Hibari, text: str) -> list[str]:
    """The phonemes of each sentence."""
    try:
        sentences = [hibari.g2p(sentence) for sentence in hibari.split_sentences(readable(text))]
    except Exception as error:
        # The front end is a pure function of the text: the same text would fail for ever.
        _logger.exception("hibari's front end failed on a text of %d characters", len(text))
        raise UnspeakableTextError(
            "the voice's pronunciation rules cannot read this text: send it in smaller parts to "
            "find the one they fail on.",
            code="unreadable_text",
        ) from error
    return [sentence for sentence in sentences if sentence]


def _plan(hibari: Hibari, request: SpeechRequest) -> list[str]:
    """The pieces of a text, all of them, so that one that cannot be spoken is known at once."""
    sentences = _sentences(hibari, request.text)
    if not any(_WORD_SOUND.search(sentence) for sentence in sentences):
        raise UnspeakableTextError(
            "input has no words that the voice can pronounce.", code="nothing_to_speak"
        )
    seconds = sum(map(len, sentences)) * _SECONDS_PER_PHONEME / request.speed
    if seconds > LONGEST_AUDIO_SECONDS:
        raise UnspeakableTextError(
            f"input would take about {seconds:.0f} s to speak; at most {LONGEST_AUDIO_SECONDS:.0f} "
            "s are allowed in one request: split the text.",
            code="text_too_long",
        )
    pieces: list[str] = []
    for sentence in sentences:
        preferred = PIECE_PHONEMES if pieces else FIRST_PIECE_PHONEMES
        pieces.extend(split_phonemes(sentence, preferred, PIECE_PHONEMES))
    return pieces
