"""Repetition-aware sampling, held to a literal loop and to the distribution that it must have."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from glm_tts.sampling import SamplingConfig, sample, sample_as_reference

V = 60
CONFIG = SamplingConfig()


def _logits(seed: int, spread: float = 2.0) -> Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * spread


def _literally(logits: Tensor, past: list[int], generator: torch.Generator) -> int:
    """The draw as VALL-E 2 and the published loop describe it, one candidate after the other."""
    probabilities = torch.log_softmax(logits.float(), dim=-1).softmax(dim=0)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    kept: list[int] = []
    weights: list[Tensor] = []
    together = 0.0
    for weight, one in zip(ordered, ids, strict=True):
        if together < 0.8 and len(kept) < 25:
            together += weight
            weights.append(weight)
            kept.append(int(one))
        else:
            break
    drawn = kept[int(torch.stack(weights).multinomial(1, generator=generator))]
    if past[-10:].count(drawn) >= 10 * 0.1:
        drawn = int(probabilities.multinomial(1, generator=generator))
    return drawn


@given(st.integers(0, 10**6), st.lists(st.integers(0, V - 1), max_size=14))
def test_the_exact_path_draws_what_a_literal_loop_draws(seed: int, past: list[int]) -> None:
    logits = _logits(seed)
    expected = _literally(logits, past, torch.Generator().manual_seed(seed))
    drawn = sample_as_reference(logits, past, CONFIG, torch.Generator().manual_seed(seed))
    assert drawn == expected


def _nucleus(logits: Tensor) -> dict[int, float]:
    """Candidates with their probabilities, by the definition."""
    ordered = sorted(enumerate(logits.softmax(-1).tolist()), key=lambda pair: -pair[1])[:25]
    kept: dict[int, float] = {}
    for one, weight in ordered:
        if sum(kept.values()) < 0.8:
            kept[one] = weight
    total = sum(kept.values())
    return {one: weight / total for one, weight in kept.items()}


def _chi_squared(counts: Counter[int], expected: dict[int, float], draws: int) -> float:
    """Of the ids that are expected at least five times, the others taken together."""
    usual = {one: share * draws for one, share in expected.items() if share * draws >= 5}
    rare_seen = draws - sum(counts[one] for one in usual)
    rare = max(draws - sum(usual.values()), 1e-9)
    terms = [(counts[one] - often) ** 2 / often for one, often in usual.items()]
    terms += [(rare_seen - rare) ** 2 / rare] if rare >= 5 else []
    return sum(terms) / max(1, len(terms) - 1)


DRAWS = 40_000


def _drawn(logits: Tensor, recent: list[int], config: SamplingConfig = CONFIG) -> Counter[int]:
    uniform = torch.rand(DRAWS, 2, generator=torch.Generator().manual_seed(5))
    past = torch.tensor([recent + [-1] * (config.window - len(recent))]).expand(DRAWS, -1)
    return Counter(sample(logits.expand(DRAWS, -1), past, uniform, config).tolist())


# Of about 20 ids, chi-squared over its degrees of freedom exceeds 2.6 once in 10,000 seeds.
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_draws_have_the_distribution_of_the_nucleus(seed: int) -> None:
    logits, expected = _logits(seed), _nucleus(_logits(seed))
    counts = _drawn(logits, [])
    assert set(counts) <= set(expected)
    assert _chi_squared(counts, expected, DRAWS) < 2.6
    flat = dict.fromkeys(expected, 1 / len(expected))
    assert _chi_squared(counts, flat, DRAWS) > 2.6, "a wrong distribution would be noticed"


def test_a_repeated_id_is_drawn_again_from_everything_and_may_come_again() -> None:
    logits = _logits(4)
    nucleus, everything = _nucleus(logits), logits.softmax(-1).tolist()
    repeated = max(nucleus, key=nucleus.__getitem__)
    counts = _drawn(logits, [repeated])
    expected = {
        one: (nucleus.get(one, 0.0) if one != repeated else 0.0) + nucleus[repeated] * weight
        for one, weight in enumerate(everything)
    }
    assert _chi_squared(counts, expected, DRAWS) < 2.6
    masked = dict(expected) | {repeated: 0.0}
    assert counts[repeated] > 0, "masking the repeated id is another sampler"
    total = sum(masked.values())
    masked = {one: weight / total for one, weight in masked.items()}
    assert _chi_squared(counts, masked, DRAWS) > 2.6


def test_only_the_window_counts_as_a_moment_ago() -> None:
    logits = _logits(4)
    likeliest = int(logits.argmax())
    greedy = SamplingConfig(nucleus_probability=0)
    generator = torch.Generator().manual_seed(0)
    assert (
        sample_as_reference(logits, [likeliest, *range(100, 110)], greedy, generator) == likeliest
    )
    drawn = {
        sample_as_reference(logits, [likeliest, *range(100, 109)], greedy, generator)
        for _ in range(20)
    }
    assert len(drawn) > 1


def test_the_shares_of_the_window_above_one_id_are_counted() -> None:
    logits = _logits(4)
    likeliest = int(logits.argmax())
    greedy = SamplingConfig(nucleus_probability=0, repetition_share=0.3)
    assert set(_drawn(logits, [likeliest] * 2, greedy)) == {likeliest}
    assert len(_drawn(logits, [likeliest] * 3, greedy)) > 1


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.integers(1, V - 1))
def test_what_has_no_weight_is_never_drawn(seed: int, uniform: float, allowed: int) -> None:
    """Not even where the product with the total rounds up to it."""
    order = torch.randperm(V, generator=torch.Generator().manual_seed(seed))
    logits = torch.full((V,), -torch.inf)
    logits[order[:allowed]] = _logits(seed)[:allowed]
    for number in (uniform, 0.0, 1 - 2**-24):
        numbers = torch.full((1, 2), number)
        recent = order[:10][None].clone()
        recent[0, allowed:] = -1
        drawn = int(sample(logits[None], recent, numbers, CONFIG))
        assert drawn in order[:allowed]


def test_rows_do_not_touch_each_other() -> None:
    logits = torch.stack([_logits(seed) for seed in range(5)])
    uniform = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    recent = torch.randint(-1, V, (5, 10), generator=torch.Generator().manual_seed(2))
    together = sample(logits, recent, uniform, CONFIG)
    for row in range(5):
        one = slice(row, row + 1)
        assert together[row] == sample(logits[one], recent[one], uniform[one], CONFIG)


def test_settings_that_could_never_draw_are_refused_with_all_their_faults() -> None:
    with pytest.raises(ValueError, match="nucleus_probability") as refusal:
        SamplingConfig(nucleus_probability=1.5, candidates=0, window=0, repetition_share=0)
    assert str(refusal.value) == (
        "nucleus_probability: 1.5, must be 0 to 1; candidates: 0, must be at least 1; "
        "window: 0, must be at least 1; repetition_share: 0, must be above 0"
    )
    SamplingConfig(nucleus_probability=1, candidates=1, window=1, repetition_share=1)
