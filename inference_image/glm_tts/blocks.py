"""Which part of an utterance each pass of flow and vocoder speaks.

Flow and vocoder see the whole utterance at once, and what they make of a frame depends on the
frames after it. To stream, they run several times, each time over everything decoded so far (a
prefix), and only what has enough to look ahead to is kept: it stays as it is in all later passes.
Where the audio of two passes meets, one fades into the other.

Nothing here knows of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

IDS_PER_SECOND = 25
"""Speech ids."""
FRAMES_PER_ID = 2
"""Mel frames."""


@dataclass(frozen=True)
class Blocks:
    """How an utterance is cut for streaming.

    Small first blocks are heard soon, large later ones cost less: each pass runs over all before
    it. The defaults say the first 0.15 s once there are 11 ids.

    Raises:
        ValueError: no audio would come of it.
    """

    sizes: tuple[int, ...] = (10, 25, 50, 200)
    """Speech ids that each pass adds; the last one repeats."""
    fade_seconds: float = 0.05
    """Over which the audio of one pass turns into that of the next."""

    def __post_init__(self) -> None:
        faults = []
        if not self.sizes or min(self.sizes) < 2:
            faults.append(f"sizes: {list(self.sizes)}, must be one or more numbers of at least 2")
        elif not 0 <= self.fade_seconds * IDS_PER_SECOND <= self.sizes[0] - self.sizes[0] // 2:
            faults.append(
                f"fade_seconds: {self.fade_seconds}, must be 0 to "
                f"{(self.sizes[0] - self.sizes[0] // 2) / IDS_PER_SECOND}: what the first block of "
                f"{self.sizes[0]} speech ids leaves after looking ahead"
            )
        if faults:
            raise ValueError("; ".join(faults))

    def size(self, index: int) -> int:
        """Speech ids that a pass adds."""
        return self.sizes[min(index, len(self.sizes) - 1)]

    def end(self, index: int) -> int:
        """Speech ids that a pass runs over, unless the utterance has fewer."""
        listed = self.sizes[: index + 1]
        return sum(listed) + (index + 1 - len(listed)) * self.sizes[-1]

    def next(self, index: int, ids: int, ended: bool) -> Pass | None:
        """The pass that can be made of an utterance, of which `index` passes were made.

        Args:
            ids: speech ids decoded so far.
            ended: whether these are all.
        """
        end = self.end(index)
        if ended and ids <= end:
            return Pass(index, ids, ids * FRAMES_PER_ID, final=True)
        # Only with an id more is it known not to be the last: what is spoken must not depend on
        # when its end was learnt.
        if ids <= end:
            return None
        return Pass(index, end, (end - self.size(index) // 2) * FRAMES_PER_ID, final=False)


@dataclass(frozen=True)
class Pass:
    """One run of flow and vocoder over a prefix of an utterance."""

    index: int
    ids: int
    """Speech ids that it runs over."""
    stable_frames: int
    """So many mel frames of the utterance are kept by all later passes."""
    final: bool
