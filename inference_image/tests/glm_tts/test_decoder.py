"""Many streams decoded side by side say what each would say alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm_tts.decoder import Decoder, DecoderConfig, SpeechVocabulary
from glm_tts.llama import Llama, LlamaConfig
from glm_tts.sampling import DRAWS_PER_STEP, SamplingConfig

VOCABULARY = SpeechVocabulary(begin=40, stop=41, first=50, size=45)
MODEL = LlamaConfig(
    hidden_size=24,
    layers=2,
    query_heads=4,
    key_heads=2,
    head_size=6,
    feed_forward_size=40,
    vocabulary_size=100,
    positions=64,
)
CONFIG = DecoderConfig(rows=3, length=48)


def _model() -> Llama:
    torch.manual_seed(2)
    llama = Llama(MODEL)
    for parameter in llama.parameters():
        torch.nn.init.normal_(parameter, mean=0.05, std=0.4)
    return llama.requires_grad_(False)


LLAMA = _model()


@dataclass(frozen=True)
class Job:
    """A stream: what it begins with, how long it is, when it comes."""

    prompt: tuple[int, ...]
    ids: int
    arrival: int = 0
    shared: int = 0
    minimum: int = 0

    def uniform(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((self.prompt, self.ids)) % 2**31)
        return torch.rand(self.ids + 1, DRAWS_PER_STEP, generator=generator)


def _run(decoder: Decoder, jobs: list[Job]) -> dict[int, list[int]]:
    """What each job says: each joins when it has come and there is a row for it."""
    said: dict[int, list[int]] = {}
    rows: list[int] = []
    waiting = sorted(range(len(jobs)), key=lambda one: jobs[one].arrival)
    time = 0
    while waiting or rows:
        while waiting and jobs[waiting[0]].arrival <= time and len(rows) < decoder.config.rows:
            rows.append(one := waiting.pop(0))
            job = jobs[one]
            said[one] = decoder.join(job.prompt, job.uniform(), job.minimum, job.shared).ids()
        for one, drawn in zip(rows, decoder.step().ids() if rows else [], strict=True):
            said[one].append(drawn)
        for one in [one for one in rows if len(said[one]) >= jobs[one].ids]:
            row = rows.index(one)
            rows[row] = rows[decoder.leave(row)]
            rows.pop()
        time += 1
    return {one: ids[: jobs[one].ids] for one, ids in said.items()}


_jobs = st.builds(
    Job,
    st.lists(st.integers(0, 99), min_size=1, max_size=12).map(tuple),
    ids=st.integers(1, 20),
    arrival=st.integers(0, 12),
    minimum=st.integers(0, 20),
)


@given(st.lists(_jobs, min_size=1, max_size=6), st.booleans())
def test_any_mix_of_arrivals_and_departures_says_what_each_says_alone(
    jobs: list[Job], speech_only: bool
) -> None:
    config = replace(CONFIG, speech_only=speech_only)
    together = _run(Decoder(LLAMA, VOCABULARY, config), jobs)
    alone = {
        number: _run(Decoder(LLAMA, VOCABULARY, config), [replace(job, arrival=0)])[0]
        for number, job in enumerate(jobs)
    }
    assert together == alone


GREEDY = SamplingConfig(nucleus_probability=0, repetition_share=2)
"""A window never holds twice its length of one id: nothing counts as repeated."""


@given(st.lists(st.integers(0, 99), min_size=1, max_size=12))
def test_greedy_decoding_follows_the_likeliest_id_of_a_run_without_a_cache(prompt: list[int]):
    decoder = Decoder(LLAMA, VOCABULARY, replace(CONFIG, sampling=GREEDY, speech_only=False))
    drawn = _run(decoder, [Job(tuple(prompt), ids=12)])[0]
    ids = list(prompt)
    for one in drawn:
        other = Decoder(LLAMA, VOCABULARY, CONFIG)
        logits = LLAMA.head(LLAMA.prefill(torch.tensor(ids), other._cache, 0))[0]
        likeliest, second = logits.topk(2)
        if likeliest[0] - likeliest[1] > 1e-4:
            assert one == int(second[0])
        ids.append(one)


def test_only_speech_and_the_stop_are_drawn_and_the_stop_not_too_early() -> None:
    jobs = [Job(tuple(range(3, 3 + seed % 7 + 1)), ids=25, minimum=8) for seed in range(40)]
    speech = {*range(50, 95)}
    seen: set[int] = set()
    for job in jobs:
        said = _run(Decoder(LLAMA, VOCABULARY, CONFIG), [replace(job, ids=25 + len(job.prompt))])
        assert set(said[0]) <= speech | {41}
        assert 41 not in said[0][:8]
        seen |= set(said[0])
    assert 41 in seen, "it stops at all"
    anything = Decoder(LLAMA, VOCABULARY, replace(CONFIG, speech_only=False))
    assert not set(_run(anything, jobs[:3])[0]) <= speech | {41}, "the whole vocabulary competes"


def test_a_shared_prompt_is_read_once_and_changes_nothing() -> None:
    jobs = [Job((1, 2, 3, 4, seed), ids=9, shared=4) for seed in range(5)]
    apart = _run(Decoder(LLAMA, VOCABULARY, CONFIG), [replace(job, shared=0) for job in jobs])
    decoder = Decoder(LLAMA, VOCABULARY, CONFIG)
    assert _run(decoder, jobs) == apart
    assert len(decoder._prefixes) == 1
    forgetful = Decoder(LLAMA, VOCABULARY, replace(CONFIG, prefix_bytes=0))
    assert _run(forgetful, jobs) == apart
    assert len(forgetful._prefixes) == 0


def test_what_does_not_fit_is_refused_and_leaves_the_decoder_as_it_was() -> None:
    with pytest.raises(ValueError, match="length: 65, the model has 64 positions"):
        Decoder(LLAMA, VOCABULARY, replace(CONFIG, length=65))
    decoder = Decoder(LLAMA, VOCABULARY, CONFIG)
    uniform = torch.rand(5, 2)
    with pytest.raises(ValueError, match="prompt: 48 ids, at most 47 fit"):
        decoder.join([1] * 48, uniform, 0)
    for _ in range(3):
        decoder.join([1] * 47, uniform, 0)
    with pytest.raises(ValueError, match="all 3 rows are taken"):
        decoder.join([1], uniform, 0)
    assert decoder.active == 3
    decoder.step()


def test_buckets_hold_every_number_of_rows_and_every_length() -> None:
    for rows in range(1, 70):
        buckets = DecoderConfig(rows=rows).row_buckets()
        assert buckets == sorted(set(buckets))
        assert buckets[-1] == rows
    assert DecoderConfig(rows=32).row_buckets() == [1, 2, 4, 8, 16, 24, 32]
    assert DecoderConfig().length_buckets() == [256, 512, 1024, 2048, 3072]
    assert DecoderConfig(length=100).length_buckets() == [100]
