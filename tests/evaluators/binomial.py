"""How far a share may be from its probability by chance alone."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

CONFIDENCE: Final = 0.9999
"""One run in ten thousand is outside although nothing is wrong."""


def interval(trials: int, probability: float, confidence: float = CONFIDENCE) -> range:
    """The successes that `trials` have with this confidence; each side beyond gets half the rest.

    Exact: from the binomial distribution itself, not from the normal one that resembles it.
    """
    if probability in (0, 1):
        certain = round(trials * probability)
        return range(certain, certain + 1)
    beyond = (1 - confidence) / 2
    up = list(accumulate(_mass(trials, k, probability) for k in range(trials + 1)))
    low = next(k for k, below in enumerate(up) if below > beyond)
    high = next(k for k, below in enumerate(up) if below >= 1 - beyond)
    return range(low, high + 1)


def _mass(trials: int, successes: int, probability: float) -> float:
    ways = (
        math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    )
    failures = trials - successes
    return math.exp(ways + successes * math.log(probability) + failures * math.log1p(-probability))
