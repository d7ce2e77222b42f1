"""Which speech id comes next: repetition-aware sampling, without leaving the device.

Repetition-aware sampling (Chen et al. 2024, VALL-E 2, arXiv 2406.05370): draw from the nucleus; if
that id was drawn a moment ago, draw again from the whole distribution, the repeated id included.
Every stream brings its own uniform numbers, two for each step, so that what it says does not
depend on which other streams are decoded beside it.

Shapes: B rows, V vocabulary, N nucleus candidates, W window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DRAWS_PER_STEP = 2
"""Uniform numbers that a step may need: for the nucleus, and for a second draw."""


@dataclass(frozen=True)
class SamplingConfig:
    """How ids are drawn; the defaults are the reference's.

    Raises:
        ValueError: no id could ever be drawn that way.
    """

    nucleus_probability: float = 0.8
    """An id is a candidate while those more likely have less than this together. 0: the likeliest
    id only, which makes decoding greedy up to repetitions."""
    candidates: int = 25
    """At most so many ids are in the nucleus."""
    window: int = 10
    """Ids of the past that count as a moment ago."""
    repetition_share: float = 0.1
    """From this share of the window on, an id counts as repeated."""

    def __post_init__(self) -> None:
        bounds = {
            "nucleus_probability": ("0 to 1", 0 <= self.nucleus_probability <= 1),
            "candidates": ("at least 1", self.candidates >= 1),
            "window": ("at least 1", self.window >= 1),
            "repetition_share": ("above 0", self.repetition_share > 0),
        }
        faults = [
            f"{name}: {getattr(self, name)}, must be {bound}"
            for name, (bound, holds) in bounds.items()
            if not holds
        ]
        if faults:
            raise ValueError("; ".join(faults))


def sample(logits: Tensor, recent: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """The next id [B] of each row; both draws are always made, so that nothing waits for the first.

    Args:
        logits: [B, V]; minus infinity for what must not come.
        recent: the ids drawn last, [B, W], in any order; -1 where there were fewer.
        uniform: numbers of each row in [0, 1), [B, DRAWS_PER_STEP].
    """
    probabilities = logits.float().softmax(dim=-1)
    weights, ids = probabilities.topk(min(config.candidates, logits.shape[-1]), dim=-1)
    before = functional.pad(weights.cumsum(dim=-1)[:, :-1], (1, 0))
    kept = before < config.nucleus_probability
    kept[:, 0] = True
    chosen = ids.gather(1, _drawn(weights * kept, uniform[:, 0])[:, None])[:, 0]
    repetitions = (recent == chosen[:, None]).sum(dim=-1)
    repeated = repetitions >= config.window * config.repetition_share
    return torch.where(repeated, _drawn(probabilities, uniform[:, 1]), chosen)


def _drawn(weights: Tensor, uniform: Tensor) -> Tensor:
    """An index [B] in proportion to weights [B, N], by inverting their cumulative sum.

    Unlike `torch.multinomial` it takes one number for a draw, whatever N is.
    """
    cumulative = weights.cumsum(dim=-1)
    point = uniform[:, None].to(weights.dtype) * cumulative[:, -1:]
    # `right`: never an index of weight zero, whose cumulative sum equals the one before it.
    chosen = torch.searchsorted(cumulative, point, right=True)[:, 0]
    # The product may round up to the total: that belongs to the last index that has a weight.
    last = weights.shape[-1] - 1 - weights.flip(-1).ne(0).int().argmax(dim=-1)
    return torch.minimum(chosen, last)


def sample_as_reference(
    logits: Tensor,
    recent: Sequence[int],
    config: SamplingConfig,
    generator: torch.Generator | None = None,
) -> int:
    """The next id after logits [V] as the reference draws it, random numbers in its order.

    The exact path: one stream at a time, and a wait for the device at each draw.
    """
    # The reference normalises log-probabilities once more; it changes the last bits.
    probabilities = logits.float().log_softmax(dim=-1).softmax(dim=-1)
    weights, ids = probabilities.sort(descending=True, stable=True)
    before = functional.pad(weights[: config.candidates].cumsum(dim=-1)[:-1], (1, 0))
    count = max(1, int((before < config.nucleus_probability).sum()))
    chosen = int(ids[torch.multinomial(weights[:count], 1, generator=generator)])
    repetitions = list(recent[-config.window :]).count(chosen)
    if repetitions >= config.window * config.repetition_share:
        chosen = int(torch.multinomial(probabilities, 1, generator=generator))
    return chosen
