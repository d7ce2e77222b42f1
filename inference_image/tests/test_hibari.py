"""The CPU voice behind the engine's interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speech_server.engine import Cancellation, SpeechRequest, UnspeakableTextError
from speech_server.engines.hibari import (
    FIRST_PIECE_PHONEMES,
    HibariEngine,
    readable,
    split_phonemes,
)
from speech_server.text import check_text


@pytest.fixture(scope="module")
def hibari() -> Iterator[HibariEngine]:
    engine = HibariEngine()
    engine.warm_up()
    yield engine
    engine.close()


def speak(engine: HibariEngine, text: str, speed: float = 1.0) -> list[np.ndarray]:
    return list(engine.stream(SpeechRequest(text, "heart", speed), Cancellation()))


def test_a_sentence_becomes_audible_audio_at_a_natural_pace(hibari: HibariEngine) -> None:
    (audio,) = speak(hibari, "The quick brown fox jumps over the lazy dog.")
    assert 2.0 < len(audio) / hibari.sample_rate_hz < 5.0
    assert 0.1 < np.abs(audio).max() <= 1.0


def test_a_higher_speed_makes_shorter_audio(hibari: HibariEngine) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    slow, normal, fast = (len(speak(hibari, text, speed)[0]) for speed in (0.5, 1.0, 2.0))
    assert slow > 1.5 * normal > 2.25 * fast


def test_the_first_chunk_of_a_long_sentence_is_short(hibari: HibariEngine) -> None:
    chunks = speak(hibari, "over the hills and far away, " * 20 + "we walked.")
    assert len(chunks) > 3
    assert 0.1 < len(chunks[0]) / hibari.sample_rate_hz < FIRST_PIECE_PHONEMES * 0.08


def test_a_cancelled_stream_ends_before_its_next_chunk(hibari: HibariEngine) -> None:
    cancellation = Cancellation()
    stream = hibari.stream(SpeechRequest("One. Two. Three.", "heart"), cancellation)
    assert len(next(stream))
    cancellation.request()
    assert next(stream, None) is None


def test_streams_advanced_in_turns_do_not_mix(hibari: HibariEngine) -> None:
    texts = ["One. Two. Three. Four.", "A rather longer sentence. Another one of them."]
    alone = [[len(chunk) for chunk in speak(hibari, text)] for text in texts]
    streams = [hibari.stream(SpeechRequest(text, "heart"), Cancellation()) for text in texts]
    in_turns: list[list[int]] = [[], []]
    for _ in range(4):
        for stream, lengths in zip(streams, in_turns, strict=True):
            if (chunk := next(stream, None)) is not None:
                lengths.append(len(chunk))
    assert in_turns == alone


def test_an_engine_that_is_not_warm_refuses_to_speak() -> None:
    with pytest.raises(RuntimeError, match="before warm_up"):
        next(HibariEngine().stream(SpeechRequest("Hello.", "heart"), Cancellation()))


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=80))
@example("1" * 80)
@example("3,000,000,000,000,000,000,000,000,000,000,000,000,000,000")
@example("1/0 0/0 99:99 0000-00-00")
@example("[x](/y/) [](//) [a](//)")
@example("Chapter MMMMCMXCIX. Henry IIII.")
def test_no_permitted_text_makes_the_front_end_fail(hibari: HibariEngine, text: str) -> None:
    try:
        permitted = check_text(text, hibari.voices()[0], 80)
        stream = hibari.stream(SpeechRequest(permitted, "heart"), Cancellation())
        assert len(next(stream))
    except UnspeakableTextError as error:
        assert error.code != "unreadable_text", text  # noqa: PT017


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Wait!!!!!!!!!! What??????", "Wait!!! What???"),
        ("1" * 40, " ".join("1" * 40)),
        ("12,345,678", "12,345,678"),
        ("https://example.com/a/b?c=1", "https://example.com/a/b?c=1"),
        ("a-" * 20, "a-a-a-a-a-a-a-a- a-a-a-a-a-a-a-a- a-a-a-a-"),
        ("x², note¹", "x², note 1 "),
        ("b" * 50, f"{'b' * 24} {'b' * 24} bb"),
    ],
)
def test_text_is_made_readable_without_changing_ordinary_text(written: str, read: str) -> None:
    assert readable(written) == read


PHONEMES = st.text(st.sampled_from("ab ,;:—"), max_size=200).map(lambda s: " ".join(s.split()))


@given(PHONEMES, st.integers(1, 60), st.integers(1, 60))
def test_pieces_keep_every_phoneme_in_order_within_the_limit(
    phonemes: str, preferred: int, limit: int
) -> None:
    pieces = list(split_phonemes(phonemes, preferred, limit))
    assert all(1 <= len(piece) <= limit for piece in pieces)
    assert "".join(pieces).replace(" ", "") == phonemes.replace(" ", "")


def test_pieces_end_after_a_clause_if_they_can() -> None:
    phonemes = "aaa, bbb, ccc ddd eee fff, ggg"
    assert list(split_phonemes(phonemes, 9, 100)) == ["aaa, bbb,", "ccc ddd eee fff,", "ggg"]
    assert list(split_phonemes(phonemes, 9, 10)) == ["aaa, bbb,", "ccc ddd", "eee fff,", "ggg"]


def test_the_runtime_of_the_network_sends_nothing_home() -> None:
    program = (
        "import os, speech_server.engines.hibari as engine\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
        "engine.HibariEngine().warm_up()\n"
    )
    environment = {name: value for name, value in os.environ.items() if "ORT_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": "/nonexistent"},
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert "telemetry" not in done.stderr
