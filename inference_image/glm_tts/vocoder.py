"""What the engine asks of a vocoder, whichever sample rate it has."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Vocoder(Protocol):
    """Turns a mel into audio."""

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def samples_per_frame(self) -> int: ...

    def __call__(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel [B, T, 80] -> audio [B, T * samples_per_frame] in [-1, 1].

        Args:
            mel: log mel of 50 frames per second.
            lengths: frames of each row, [B]; by default all have T. A row gives what it would give
                alone, and zeros beyond its end.
        """
        ...
