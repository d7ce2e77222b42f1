from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluators.binomial import interval


def exactly(trials: int, probability: Fraction, successes: range) -> Fraction:
    """Probability of these successes, without rounding."""
    return sum(
        (
            math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
            for k in successes
        ),
        Fraction(0),
    )


@given(st.integers(1, 300), st.integers(1, 99), st.sampled_from([90, 99, 99.9]))
def test_an_interval_holds_as_often_as_it_says_and_is_no_wider(
    trials: int, percent: int, confidence: float
) -> None:
    probability = Fraction(percent, 100)
    found = interval(trials, percent / 100, confidence / 100)
    beyond = Fraction(1 - confidence / 100) / 2
    rounding = Fraction(1, 10**9)
    assert exactly(trials, probability, range(found.start)) <= beyond + rounding
    assert exactly(trials, probability, range(found.stop, trials + 1)) <= beyond + rounding
    assert exactly(trials, probability, range(found.start + 1)) > beyond - rounding
    assert exactly(trials, probability, range(found.stop - 1, trials + 1)) > beyond - rounding


@pytest.mark.parametrize(
    ("trials", "probability", "expected"),
    [(4000, 0.1, (328, 476)), (4000, 0.0, (0, 0)), (4000, 1.0, (4000, 4000))],
)
def test_the_interval_of_a_canary(
    trials: int, probability: float, expected: tuple[int, int]
) -> None:
    found = interval(trials, probability)
    assert (found.start, found.stop - 1) == expected
