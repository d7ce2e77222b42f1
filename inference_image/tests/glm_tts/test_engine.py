"""Many requests at once, on the engine's own threads and by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from glm_tts.blocks import Blocks
from glm_tts.decoder import DecoderConfig
from glm_tts.engine import Engine, EngineConfig, Request, RequestError, Segment, Speaker
from glm_tts.random_model import TINY, random_engine, random_speaker

Audio = NDArray[np.float32]

SIZE = replace(TINY, flow=replace(TINY.flow, ode_steps=2))
CONFIG = EngineConfig(
    DecoderConfig(rows=3, length=256), Blocks((6, 9, 14)), frame_buckets=(64, 128, 256, 512, 1024)
)
SAMPLES_PER_ID = 960

# Batches of other sizes add up in another order; audio is in [-1, 1].
SAME = {"atol": 2e-3, "rtol": 0}


def _engine(config: EngineConfig = CONFIG) -> Engine:
    return random_engine(SIZE, config)


def _speaker(engine: Engine, seed: int = 0) -> Speaker:
    return random_speaker(engine, SIZE, seconds=0.48 + seed / 10, seed=seed)


def _segment(ids: int, text: int = 3) -> Segment:
    return Segment(tuple(range(1, text + 1)), ids, ids)


def _finish(engine: Engine) -> None:
    """Everything that can be done, round by round, on this thread."""
    while engine.decode() | engine.synthesise():
        pass


@pytest.fixture
def running() -> Iterator[Engine]:
    engine = _engine()
    engine.start()
    yield engine
    engine.close()


def _audio(chunks: list[Audio]) -> Audio:
    return np.concatenate(chunks)


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(1, 30), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, 12), min_size=5, max_size=5),
)
def test_requests_sound_as_each_would_alone_whenever_they_come(
    requests: list[tuple[int, list[int]]], pauses: list[int]
) -> None:
    engine = _engine()
    speakers = [_speaker(engine, seed) for seed in range(4)]

    def request(number: int) -> Request:
        speaker, lengths = requests[number]
        return Request(speakers[speaker], tuple(map(_segment, lengths)), seed=number)

    streams = []
    for number, pause in zip(range(len(requests)), pauses, strict=False):
        streams.append(engine.speak(request(number)))
        for _ in range(pause):
            engine.decode()
            engine.synthesise()
    _finish(engine)
    for number, stream in enumerate(streams):
        alone = _engine()
        other = alone.speak(request(number))
        _finish(alone)
        together = _audio(list(stream))
        np.testing.assert_allclose(together, _audio(list(other)), **SAME)
        spoken = sum(requests[number][1]) * SAMPLES_PER_ID
        assert abs(len(together) - spoken) <= 480 * len(requests[number][1])


def test_audio_comes_while_the_rest_is_still_being_decoded() -> None:
    engine = _engine()
    stream = engine.speak(Request(_speaker(engine), (_segment(60),)))
    chunks = iter(stream)
    while stream.first_audio_seconds is None:
        engine.decode()
        engine.synthesise()
    assert len(next(chunks)) > 0
    assert engine.decoder.active == 1
    assert len(stream.spoken[0].utterance.speech_ids) < 15
    _finish(engine)
    assert engine.decoder.active == 0


def test_more_requests_than_rows_wait_for_one(running: Engine) -> None:
    speaker = _speaker(running)
    streams = [running.speak(Request(speaker, (_segment(20),), seed)) for seed in range(8)]
    lengths = [len(_audio(list(stream))) for stream in streams]
    assert lengths == [20 * SAMPLES_PER_ID] * 8


def test_a_segment_goes_on_from_those_before_it_and_from_no_more_than_fit() -> None:
    engine = _engine(replace(CONFIG, prompt_ids=60))
    speaker = _speaker(engine)
    segments = tuple(Segment((10 + n, 20 + n), 20, 20) for n in range(4))
    stream = engine.speak(Request(speaker, segments))
    prompts: list[list[int]] = []
    join = engine.decoder.join

    def noted(prompt: list[int], *others: object) -> object:
        prompts.append(list(prompt))
        return join(prompt, *others)  # pyright: ignore[reportArgumentType]

    engine.decoder.join = noted  # pyright: ignore[reportAttributeAccessIssue]
    _finish(engine)
    said = [[256 + one for one in spoken.utterance.speech_ids] for spoken in stream.spoken]
    own = [256 + one for one in speaker.speech_ids]
    voice, begin = list(speaker.text_ids), SIZE.vocabulary.begin
    assert [len(one) for one in said] == [20] * 4
    assert prompts[0] == [*voice, 10, 20, begin, *own]
    assert prompts[1] == [*voice, 10, 20, 11, 21, begin, *own, *said[0]]
    # 12 ids of the voice, 20 of each segment before, and about 20 to come: not all of them fit.
    assert prompts[2] == [*voice, 11, 21, 12, 22, begin, *own, *said[1]]
    assert prompts[3] == [*voice, 12, 22, 13, 23, begin, *own, *said[2]]


def test_a_cancelled_stream_ends_and_leaves_its_row() -> None:
    engine = _engine()
    speaker = _speaker(engine)
    cancelled, other, waiting = (
        engine.speak(Request(speaker, (_segment(40), _segment(9)), seed)) for seed in range(3)
    )
    for _ in range(10):
        engine.decode()
    assert engine.decoder.active == 3
    cancelled.cancel()
    waiting.cancel()
    engine.decode()
    assert engine.decoder.active == 1
    _finish(engine)
    assert list(cancelled) == []
    assert len(_audio(list(other))) == 49 * SAMPLES_PER_ID
    assert engine.decoder.active == 0


@settings(max_examples=5)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=12))
def test_whatever_is_cancelled_when_the_others_are_spoken_to_their_end(
    plan: list[tuple[int, int]],
) -> None:
    engine = _engine()
    speaker = _speaker(engine)
    streams = []
    for number, (ids, patience) in enumerate(plan):
        streams.append(engine.speak(Request(speaker, (_segment(ids),), number)))
        for _ in range(patience % 7):
            engine.decode()
            engine.synthesise()
        if patience > 20:
            streams[number // 2].cancel()
    _finish(engine)
    for (ids, _), stream in zip(plan, streams, strict=True):
        if not stream.cancelled:
            # The published frame count is one frame short for some lengths.
            assert abs(len(_audio(list(stream))) - ids * SAMPLES_PER_ID) <= 480
    assert engine.decoder.active == 0


def test_what_cannot_be_spoken_is_refused_before_anything_begins() -> None:
    engine = _engine()
    speaker = _speaker(engine)
    with pytest.raises(RequestError, match="segments: none, at least one is needed"):
        engine.speak(Request(speaker, ()))
    with pytest.raises(RequestError, match="segments: one has no text ids"):
        engine.speak(Request(speaker, (_segment(5), Segment((), 0, 5))))
    with pytest.raises(RequestError) as refusal:
        engine.speak(Request(speaker, (Segment.of(range(1, 13)),)))
    assert str(refusal.value) == (
        "segments: 12 text ids may need 240 speech ids, and beside this voice's prompt there is "
        "room for 228: use shorter segments, or a shorter reference clip"
    )
    assert not engine.decode()
    assert not engine.synthesise()
    engine.speak(Request(speaker, (Segment.of(range(1, 12)),)))


@pytest.mark.parametrize("part", ["decode", "synthesise"])
def test_a_part_that_fails_ends_every_stream_with_its_error(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = _engine()
    speaker = _speaker(engine)
    failing = threading.Event()
    healthy = getattr(engine, part)

    def round_() -> bool:
        if failing.is_set():
            raise RuntimeError("the device is gone")
        return healthy()

    round_.__name__ = part
    setattr(engine, part, round_)
    engine.start()
    assert len(_audio(list(engine.speak(Request(speaker, (_segment(9),)))))) > 0
    failing.set()
    with pytest.raises(RuntimeError, match=r"closed|the device is gone"):
        list(engine.speak(Request(speaker, (_segment(9),))))
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.speak(Request(speaker, (_segment(9),)))
    engine.close()
    assert f"the engine failed in its thread '{part}'" in caplog.text


def test_closing_ends_what_is_being_spoken(running: Engine) -> None:
    streams = [running.speak(Request(_speaker(running), (_segment(90),), n)) for n in range(5)]
    next(iter(streams[0]))
    running.close()
    for stream in streams:
        list(stream)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        running.speak(Request(_speaker(running), (_segment(9),)))


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 30), (30, 30), (10, 30)])
@pytest.mark.parametrize("push", [-50.0, 50.0])
def test_no_sampling_goes_on_for_ever(push: float, minimum: int, maximum: int) -> None:
    """The stop may never come, or be all that could come: a segment has its bounds anyway."""
    engine = _engine()
    stop = engine.decoder._head.get_parameter("weight")[-1]
    stop.copy_(engine.decoder._llama.norm.weight * push)
    speaker = _speaker(engine)
    streams = [
        engine.speak(Request(speaker, (Segment((1, 2), minimum, maximum),), seed))
        for seed in range(4)
    ]
    _finish(engine)
    for stream in streams:
        ids = len(stream.spoken[0].utterance.speech_ids)
        assert minimum <= ids <= maximum
        assert abs(sum(map(len, stream)) - ids * SAMPLES_PER_ID) <= 480
