"""Who is decoded, and which passes of flow and vocoder are made together.

Only counters and queues: nothing here knows of torch, nor of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """Something that waits for a row of the decoder."""

    @property
    def cancelled(self) -> bool: ...


W = TypeVar("W", bound=Waiting)


class Rows(Generic[W]):
    """Which utterance is in which row of the decoder; the others wait in the order they came."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._waiting: deque[W] = deque()
        self._active: list[W] = []

    @property
    def active(self) -> Sequence[W]:
        """Row by row."""
        return self._active

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def wait(self, one: W) -> None:
        self._waiting.append(one)

    def wait_first(self, one: W) -> None:
        """Put one before all others: it goes on with something that has begun."""
        self._waiting.appendleft(one)

    def next(self) -> W | None:
        """The one that can join the decoder now; those that were cancelled are dropped."""
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        if not self._waiting or len(self._active) == self._rows:
            return None
        return self._waiting[0]

    def join(self) -> None:
        """`next` has joined, in the row after the last one."""
        self._active.append(self._waiting.popleft())

    def leave(self, row: int) -> None:
        """The last row takes the place of one that leaves, as in `Decoder.leave`."""
        self._active[row] = self._active[-1]
        self._active.pop()


@dataclass(frozen=True, order=True)
class Urgency:
    """What is made first: what nobody has heard anything of, then what runs dry first."""

    runs_dry: float
    """Clock in seconds when the listener has heard all there is; minus infinity before the first
    audio."""
    arrived: float
    """Clock in seconds."""


class Candidate(Protocol):
    """A pass that can be made now."""

    @property
    def urgency(self) -> Urgency: ...

    @property
    def frames(self) -> int:
        """Mel frames that it runs over, the prompt's included."""
        ...


C = TypeVar("C", bound=Candidate)


def together(candidates: Iterable[C], limit_frames: int, buckets: Sequence[int]) -> list[C]:
    """The most urgent pass, and those that can be made with it at little cost.

    Those are passes of the same length bucket, the most urgent first, as many as the limit allows.

    Args:
        limit_frames: of all passes together, each counted with the length of its bucket.
        buckets: lengths in frames, ascending; the last one holds the longest pass.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.urgency)
    if not ordered:
        return []
    length = bucket(ordered[0].frames, buckets)
    alike = [one for one in ordered if bucket(one.frames, buckets) == length]
    return alike[: max(1, limit_frames // length)]


def bucket(frames: int, buckets: Sequence[int]) -> int:
    """The shortest bucket that holds so many frames."""
    return next(length for length in buckets if length >= frames)
