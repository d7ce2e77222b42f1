"""Audio leaves as it is made."""

from __future__ import annotations

import time

import pytest

from infra.local.speak import SAMPLE_RATE_HERTZ, sentences
from tests.e2e.environment import Environment
from voicemesh.contract import SPEECH_PATH

_BYTES_PER_SECOND = SAMPLE_RATE_HERTZ * 2
_TENTH_OF_A_SECOND = _BYTES_PER_SECOND // 10

Arrivals = list[tuple[float, int]]
"""Of each read: seconds since the request, and bytes."""


def test_the_first_tenth_of_a_second_arrives_while_the_engine_is_at_work(
    environment: Environment,
) -> None:
    arrivals = _arrivals(environment, " ".join(sentences()[:40]))
    heard_seconds = sum(size for _, size in arrivals) / _BYTES_PER_SECOND
    assert heard_seconds > 60, "a long text makes long audio"
    share = first_audio_share(arrivals)
    assert share < 0.25, f"first audio came after {share:.0%} of the time"


def test_audio_that_is_sent_when_all_of_it_is_made_would_be_noticed() -> None:
    buffered = [(1.0 + n / 10_000, 48_000) for n in range(100)]
    streamed = [(0.1 + n / 100, 48_000) for n in range(100)]
    assert first_audio_share(buffered) > 0.9
    assert first_audio_share(streamed) < 0.25


def first_audio_share(arrivals: Arrivals) -> float:
    """When 100 ms of audio had arrived, as a share of the time until all had.

    The way to the client takes far less time than synthesis: audio that arrives late in the total
    was not made earlier.
    """
    received = 0
    for seconds, size in arrivals:
        received += size
        if received >= _TENTH_OF_A_SECOND:
            return seconds / arrivals[-1][0]
    pytest.fail(f"only {received} bytes of audio arrived")


def _arrivals(environment: Environment, text: str) -> Arrivals:
    body = {"model": "tts-1", "voice": "heart", "input": text, "response_format": "pcm"}
    arrivals: Arrivals = []
    with environment.door.client() as client:
        started = time.monotonic()
        with client.stream("POST", SPEECH_PATH, json=body) as answer:
            assert answer.status_code == 200
            for chunk in answer.iter_raw():
                arrivals.append((time.monotonic() - started, len(chunk)))
    return arrivals
