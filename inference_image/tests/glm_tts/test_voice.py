"""A clip becomes a voice once, a useless one is refused with the reason, and files are safe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from glm_tts import features, voice
from glm_tts.features import PROMPT_MEL
from glm_tts.speaker import SpeakerEncoder
from glm_tts.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from glm_tts.voice import (
    SAMPLE_RATES_HZ,
    ClipError,
    Voice,
    VoiceCache,
    VoiceFileError,
    VoiceMaker,
    load,
    save,
)
from inference_image.tests.glm_tts import tiny_campplus

Clip = NDArray[np.float32]


def clip(
    seconds: float = 1.0, rate: int = 24_000, channels: int | None = None, seed: int = 0
) -> Clip:
    """A gliding tone over noise: one per channel if their number is given."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=(channels or 1, len(t)))
    pitch = 150 + 40 * np.arange(1, (channels or 1) + 1)[:, None]
    made = 0.2 * np.sin(2 * np.pi * (pitch * t + 20 * np.sin(3 * t))) + 0.02 * noise
    return (made if channels else made[0]).astype(np.float32)


def text_ids(transcript: str) -> list[int]:
    return [ord(it) for it in transcript + " "]


@pytest.fixture(scope="module")
def parts() -> tuple[SpeechTokenizer, SpeakerEncoder]:
    config = SpeechTokenizerConfig(hidden=16, heads=2, ffn=24, layers=1, pooling_layer=1, codes=97)
    tokenizer, generator = SpeechTokenizer(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return tokenizer, SpeakerEncoder(tiny_campplus.model())


@pytest.fixture(scope="module")
def maker(parts: tuple[SpeechTokenizer, SpeakerEncoder]) -> VoiceMaker:
    return VoiceMaker(*parts, text_ids, "weights 1, exact text")


# Making a voice


@pytest.mark.parametrize("channels", [None, 1, 2])
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_each_part_hears_the_clip_at_its_own_rate_and_channel(
    maker: VoiceMaker,
    parts: tuple[SpeechTokenizer, SpeakerEncoder],
    rate: int,
    channels: int | None,
) -> None:
    audio = clip(1.3, rate, channels)
    made = maker.make(audio, rate, "hello")
    all_channels = torch.from_numpy(np.atleast_2d(audio))
    mono = all_channels.mean(dim=0)
    tokenizer, encoder = parts
    at_16khz = features.resample(all_channels, rate, 16_000)
    assert made.text_ids.tolist() == [104, 101, 108, 108, 111, 32]
    assert torch.equal(made.speech_ids, tokenizer.encode(at_16khz[0]))
    assert len(made.speech_ids) == -(-at_16khz.shape[1] // 640)
    heard = encoder.embed(features.resample(mono, rate, 16_000))
    torch.testing.assert_close(made.speaker, heard, atol=1e-4, rtol=0)
    for vocoder, config in PROMPT_MEL.items():
        expected = features.prompt_mel(features.resample(mono, rate, vocoder), config)
        torch.testing.assert_close(made.mel(vocoder), expected, atol=1e-5, rtol=0)
        assert abs(len(expected) - 2 * len(made.speech_ids)) <= 2


def test_the_first_channel_is_heard_by_the_tokenizer_and_the_mean_by_the_others(
    maker: VoiceMaker,
) -> None:
    both = clip(channels=2)
    made = maker.make(both, 24_000, "a")
    left, mean = maker.make(both[0], 24_000, "a"), maker.make(both.mean(0), 24_000, "a")
    assert torch.equal(made.speech_ids, left.speech_ids)
    assert not torch.equal(made.speech_ids, mean.speech_ids)
    torch.testing.assert_close(made.mel_24khz, mean.mel_24khz)
    torch.testing.assert_close(made.speaker, mean.speaker, atol=1e-4, rtol=0)
    assert not torch.allclose(made.mel_24khz, left.mel_24khz)
    assert not torch.allclose(made.speaker, left.speaker, atol=1e-2)


def test_the_digest_tells_everything_apart_that_the_voice_depends_on(
    maker: VoiceMaker, parts: tuple[SpeechTokenizer, SpeakerEncoder]
) -> None:
    audio = clip()
    louder = audio.copy()
    louder[-1] += 1e-6
    same = maker.digest(audio, 24_000, "hello")
    others = [
        maker.digest(louder, 24_000, "hello"),
        maker.digest(audio[:-1], 24_000, "hello"),
        maker.digest(audio[None], 24_000, "hello"),
        maker.digest(audio.reshape(2, -1), 24_000, "hello"),
        maker.digest(audio, 32_000, "hello"),
        maker.digest(audio, 24_000, "hallo"),
        VoiceMaker(*parts, text_ids, "weights 2").digest(audio, 24_000, "hello"),
    ]
    assert len({same, *others}) == 8
    assert maker.digest(audio.copy(), 24_000, "hello") == same
    assert maker.make(audio, 24_000, "hello").digest == same


def test_where_one_part_ends_and_the_next_begins_counts(
    parts: tuple[SpeechTokenizer, SpeakerEncoder],
) -> None:
    first, second = VoiceMaker(*parts, text_ids, "a2"), VoiceMaker(*parts, text_ids, "a")
    assert first.digest(clip(), 24_000, "x") != second.digest(clip(), 224_000, "x")


# Refusing a clip


def silent_first_channel() -> Clip:
    both = clip(channels=2)
    both[0] *= 1e-4
    return both


def opposite_channels() -> Clip:
    return np.stack([clip(), -clip()])


def with_one(value: float) -> Clip:
    audio = clip()
    audio[1000] = value
    return audio


def click() -> Clip:
    audio = np.zeros(24_000, np.float32)
    audio[9000:9400] = 0.5
    return audio


REFUSED: dict[str, tuple[Callable[[], Clip], int, str, str]] = {
    "0.49 s": (lambda: clip(0.49), 24_000, "audio", "lasts 0.49 s, less than 0.5 s"),
    "nothing": (lambda: clip(0), 24_000, "audio", "lasts 0.00 s, less than 0.5 s"),
    "30.01 s": (lambda: clip(30.01), 24_000, "audio", "lasts 30.01 s, more than 30 s"),
    "8 kHz": (clip, 8000, "sample_rate", "is 8000 Hz, and not one of 16000, 22050,"),
    "a rate of its own": (clip, 44_099, "sample_rate", "is 44099 Hz"),
    "silence": (lambda: clip() * 0, 24_000, "audio", "its first channel is louder than -45 dBFS"),
    "a click": (click, 24_000, "audio", "for 0.04 s, less than 0.25 s"),
    "only noise": (lambda: clip() / 100, 24_000, "audio", "first channel is louder"),
    "silent first": (silent_first_channel, 24_000, "audio", "its first channel is louder than"),
    "opposite": (opposite_channels, 24_000, "audio", "its channels' mean is louder than"),
    "clipped": (lambda: (clip() * 50).clip(-1, 1), 24_000, "audio", "is at full scale in 9"),
    "integers": (
        lambda: (clip() * 32767).astype(np.int16),  # type: ignore[return-value]
        24_000,
        "audio",
        "is of the type int16, not of floating point",
    ),
    "integers as floats": (lambda: clip() * 32767, 24_000, "audio", r"beyond ±1.5"),
    "not a number": (lambda: with_one(np.nan), 24_000, "audio", "has infinite samples or none"),
    "infinite": (lambda: with_one(np.inf), 24_000, "audio", "has infinite samples or none"),
    "channels last": (lambda: clip(channels=2).T, 24_000, "audio", r"has the shape (24000, 2)"),
    "no channels": (lambda: clip(channels=2)[:0], 24_000, "audio", r"has the shape (0, 24000)"),
    "too deep": (lambda: clip(channels=2)[None], 24_000, "audio", r"has the shape (1, 2, 24000)"),
}
PERMITTED: dict[str, tuple[Callable[[], Clip], int]] = {
    "0.5 s": (lambda: clip(0.5), 24_000),
    "30 s": (lambda: clip(30, 16_000), 16_000),
    "16 kHz": (lambda: clip(1, 16_000), 16_000),
    "quiet": (lambda: clip() / 10, 24_000),
    "one sample at full scale": (lambda: with_one(1.0), 24_000),
    "an overshoot": (lambda: with_one(-1.2), 24_000),
    "two channels": (lambda: clip(channels=2), 24_000),
    "double precision": (lambda: clip().astype(np.float64), 24_000),  # type: ignore[dict-item]
    "silence around it": (
        lambda: np.pad(clip(0.3), 24_000),
        24_000,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_useless_clip_is_refused_with_field_value_and_bound(maker: VoiceMaker, case: str) -> None:
    make, rate, field, problem = REFUSED[case]
    with pytest.raises(ClipError) as caught:
        maker.make(make(), rate, "hello")
    (fault,) = caught.value.faults
    assert fault.field == field
    assert problem in fault.problem
    assert fault.fix
    assert str(caught.value) == f"{field}: {fault.problem}; {fault.fix}"


@pytest.mark.parametrize("case", PERMITTED)
def test_a_usable_clip_is_not(maker: VoiceMaker, case: str) -> None:
    make, rate = PERMITTED[case]
    made = maker.make(make(), rate, "hello")
    assert len(made.speech_ids) == -(-make().shape[-1] * 16_000 // rate // 640)


def test_everything_that_is_wrong_is_said_at_once(maker: VoiceMaker) -> None:
    with pytest.raises(ClipError) as caught:
        maker.make((clip() * 50).clip(-1, 1) * 0, 24_000, " \n")
    assert [it.code for it in caught.value.faults] == ["no_transcript", "silent"]
    with pytest.raises(ClipError) as caught:
        maker.make(clip(channels=2).T, 8000, "")
    assert [it.code for it in caught.value.faults] == ["no_transcript", "sample_rate", "shape"]


@given(st.integers(8_000, 20_000), st.sampled_from(SAMPLE_RATES_HZ))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lengths_agree_whatever_the_rate(maker: VoiceMaker, samples: int, rate: int) -> None:
    audio = np.resize(clip(0.6, rate), max(samples, rate // 2 + 1))
    made = maker.make(audio, rate, "a")
    seconds = len(audio) / rate
    assert abs(len(made.speech_ids) - 25 * seconds) <= 1
    for vocoder in PROMPT_MEL:
        assert 50 * seconds - 1 <= len(made.mel(vocoder)) <= 50 * seconds + 0.1


# Keeping voices


def a_voice(digest: str = "a", frames: int = 10) -> Voice:
    return Voice(
        text_ids=torch.arange(3),
        speech_ids=torch.arange(frames // 2),
        mel_24khz=torch.randn(frames, 80),
        mel_32khz=torch.randn(frames, 80),
        speaker=torch.randn(192),
        digest=digest,
    )


SIZE = a_voice().bytes


def must_not_be_made() -> Voice:
    raise AssertionError("it is kept already")


def test_the_size_of_a_voice_is_that_of_its_tensors() -> None:
    assert SIZE == 8 * (3 + 5) + 4 * (2 * 10 * 80 + 192)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_voice_is_made_once() -> None:
    cache = VoiceCache(10 * SIZE, 60)
    made = cache.get_or_make("a", a_voice)
    assert cache.get_or_make("a", must_not_be_made) is made
    assert cache.get("a") is made
    assert cache.get("b") is None
    assert (len(cache), cache.bytes) == (1, SIZE)


def test_the_least_recently_used_is_given_up_for_room() -> None:
    cache = VoiceCache(2 * SIZE, 60)
    for digest in "ab":
        cache.get_or_make(digest, lambda digest=digest: a_voice(digest))
    cache.get("a")
    cache.get_or_make("c", lambda: a_voice("c"))
    assert [digest for digest in "abc" if cache.get(digest)] == ["a", "c"]
    assert cache.bytes == 2 * SIZE


def test_what_is_larger_than_the_cache_is_made_and_not_kept() -> None:
    cache = VoiceCache(SIZE, 60)
    kept = cache.get_or_make("a", a_voice)
    assert cache.get_or_make("b", lambda: a_voice("b", frames=100)).digest == "b"
    assert cache.get("b") is None
    assert cache.get("a") is kept


def test_a_voice_gets_old_however_often_it_is_used() -> None:
    clock = Clock()
    cache = VoiceCache(10 * SIZE, 60, clock)
    first = cache.get_or_make("a", a_voice)
    for clock.now in (30.0, 59.0):
        assert cache.get("a") is first
    clock.now = 60.0
    assert (len(cache), cache.bytes) == (0, 0)
    assert cache.get_or_make("a", a_voice) is not first


def test_a_discarded_voice_is_made_anew() -> None:
    cache = VoiceCache(10 * SIZE, 60)
    first = cache.get_or_make("a", a_voice)
    cache.discard("a")
    cache.discard("never there")
    assert cache.get_or_make("a", a_voice) is not first


class Making:
    """Makes a voice when told to, and says when it has begun."""

    def __init__(self) -> None:
        self.begun, self.told = threading.Event(), threading.Event()
        self.result: Voice | Exception = a_voice()
        self.times = 0

    def __call__(self) -> Voice:
        self.times += 1
        self.begun.set()
        assert self.told.wait(30)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Asking(threading.Thread):
    def __init__(self, cache: VoiceCache, make: Callable[[], Voice], digest: str = "a") -> None:
        super().__init__(daemon=True)
        self._ask = lambda: cache.get_or_make(digest, make)
        self.outcome: Voice | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._ask()
        except ClipError as error:
            self.outcome = error

    def answer(self) -> Voice | Exception | None:
        self.join(30)
        assert not self.is_alive()
        return self.outcome


@pytest.mark.parametrize("result", [a_voice(), ClipError([])])
def test_who_wants_what_is_being_made_waits_for_it(result: Voice | Exception) -> None:
    cache, making = VoiceCache(10 * SIZE, 60), Making()
    making.result = result
    first = Asking(cache, making)
    assert making.begun.wait(30)
    others = [Asking(cache, must_not_be_made) for _ in range(5)]
    other = cache.get_or_make("b", lambda: a_voice("b"))  # does not wait
    assert other.digest == "b"
    making.told.set()
    assert all(it.answer() is result for it in (first, *others))
    assert making.times == 1


def test_after_a_failure_the_next_one_tries_again() -> None:
    cache = VoiceCache(10 * SIZE, 60)

    def fail() -> Voice:
        raise ClipError([])

    with pytest.raises(ClipError):
        cache.get_or_make("a", fail)
    assert cache.get_or_make("a", a_voice).digest == "a"


def test_what_is_discarded_while_it_is_made_is_not_kept() -> None:
    cache, making = VoiceCache(10 * SIZE, 60), Making()
    first = Asking(cache, making)
    assert making.begun.wait(30)
    cache.discard("a")
    anew = cache.get_or_make("a", a_voice)
    making.told.set()
    assert first.answer() is making.result
    assert cache.get("a") is anew


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30), st.booleans()), max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_cache_never_holds_more_than_it_may(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Against a list of what must be there, most recently used last."""
    clock, limit = Clock(), 3 * SIZE
    cache = VoiceCache(limit, 20, clock)
    expected: list[tuple[str, float]] = []
    for digest, later, discarded in steps:
        clock.now += later
        expected = [(it, made) for it, made in expected if clock.now - made < 20]
        there = dict(expected).get(digest)
        expected = [it for it in expected if it[0] != digest]
        if discarded:
            cache.discard(digest)
            there = None
        else:
            cache.get_or_make(digest, lambda digest=digest: a_voice(digest))
            expected.append((digest, clock.now if there is None else there))
            expected = expected[-3:]
        assert cache.bytes <= limit
        assert len(cache) == len(expected)
    assert {it for it in "abcd" if cache.get(it)} == {it for it, _ in expected}


# Files


def assert_same(found: Voice, expected: Voice) -> None:
    assert found.digest == expected.digest
    for name, tensor in expected.tensors.items():
        assert torch.equal(getattr(found, name), tensor)


def test_a_saved_voice_is_the_same_when_loaded(maker: VoiceMaker, tmp_path: Path) -> None:
    made = maker.make(clip(), 24_000, "hello")
    save(made, tmp_path / "voice")
    assert_same(load(tmp_path / "voice"), made)
    assert [it.name for it in tmp_path.iterdir()] == ["voice"]
    read = safetensors.torch.load_file(tmp_path / "voice")
    assert read.keys() == made.tensors.keys()


def test_saving_replaces_the_file_whole_or_not_at_all(tmp_path: Path) -> None:
    first = a_voice("first")
    save(first, tmp_path / "voice")
    broken = a_voice("second")
    object.__setattr__(broken, "speaker", broken.speaker.to(torch.complex64))
    with pytest.raises(KeyError):
        save(broken, tmp_path / "voice")
    assert_same(load(tmp_path / "voice"), first)
    assert [it.name for it in tmp_path.iterdir()] == ["voice"]


def saved(path: Path, metadata: dict[str, str] | None = None, **changed: Tensor | None) -> None:
    tensors = {k: v for k, v in {**a_voice().tensors, **changed}.items() if v is not None}
    described = {"format": "glm-tts voice 1", "digest": "a"} if metadata is None else metadata
    safetensors.torch.save_file(tensors, path, described)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"speaker": torch.zeros(191)}, r"speaker is torch.float32 \[191\], not .* \[192\]"),
        ({"speaker": torch.zeros(1, 192)}, r"speaker is torch.float32 \[1, 192\]"),
        ({"mel_24khz": torch.zeros(4, 81)}, r"mel_24khz is torch.float32 \[4, 81\]"),
        ({"mel_32khz": torch.zeros(4, 80).half()}, "mel_32khz is torch.float16"),
        ({"speech_ids": torch.zeros(4)}, "speech_ids is torch.float32"),
        ({"speech_ids": torch.tensor([-1])}, "speech_ids are not all from 0 to 32767"),
        ({"speech_ids": torch.tensor([1, 32_768])}, "speech_ids are not all"),
        ({"text_ids": torch.tensor([-1])}, "text_ids are not all from 0 to 98303"),
        ({"mel_24khz": torch.full((4, 80), torch.nan)}, "has infinite values or none"),
        ({"speaker": None}, "has .*; expected .*speaker"),
        ({"more": torch.zeros(1)}, "has .*more.*; expected"),
        ({"metadata": {"format": "glm-tts voice 2", "digest": "a"}}, "make the voice again"),
        ({"metadata": {"format": "glm-tts voice 1"}}, "make the voice again"),
        ({"metadata": {}}, "is None, not 'glm-tts voice 1'"),
    ],
)
def test_a_file_that_is_not_a_voice_is_refused(
    tmp_path: Path, changed: dict[str, Tensor | None], problem: str
) -> None:
    path = tmp_path / "voice"
    saved(path)
    assert load(path).digest == "a"
    saved(path, **changed)  # type: ignore[arg-type]
    with pytest.raises(VoiceFileError, match=problem) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    save(a_voice(), tmp_path / "voice")
    whole = (tmp_path / "voice").read_bytes()
    for content in (b"", whole[:100], whole[:-1], whole + b"\0", b"\x80\x04N."):
        (tmp_path / "voice").write_bytes(content)
        with pytest.raises(VoiceFileError):
            load(tmp_path / "voice")


def test_a_voice_moves_to_another_device_whole() -> None:
    moved = a_voice().to("meta")
    assert moved.digest == "a"
    assert {it.device.type for it in moved.tensors.values()} == {"meta"}
    assert [it.name for it in fields(Voice)] == [*moved.tensors, "digest"]
    assert [it.name for it in fields(Voice)] == [*voice._TENSORS, "digest"]
    assert replace(moved, digest="b").digest == "b"
