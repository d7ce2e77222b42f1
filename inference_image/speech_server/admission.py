"""Who may start now, who waits, and who is told to come back later."""

from __future__ import annotations

import asyncio
import math
from collections import deque

_MEAN_WEIGHT = 0.2
_LONGEST_RETRY_SECONDS = 60


def retry_after_seconds(waiting: int, concurrency: int, mean_service_seconds: float) -> int:
    """Whole seconds until those ahead have had their turn, from 1 to 60."""
    expected = (waiting + 1) * mean_service_seconds / concurrency
    return max(1, min(_LONGEST_RETRY_SECONDS, math.ceil(expected)))


class QueueFullError(Exception):
    """Nobody else may wait."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"the queue is full: try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class Turn:
    """A place in line and then a slot, until it is given back."""

    def __init__(self) -> None:
        self._granted = asyncio.get_running_loop().create_future()

    async def granted(self) -> bool:
        """Wait for the slot; False when the place was given up before."""
        return await asyncio.shield(self._granted)

    def settle(self, granted: bool) -> None:
        self._granted.set_result(granted)

    @property
    def settled(self) -> bool:
        return self._granted.done()


class Admission:
    """At most `concurrency` hold a slot and at most `queue_limit` wait for one, first come first
    served. For one event loop; nothing here blocks."""

    def __init__(
        self, concurrency: int, queue_limit: int, initial_service_seconds: float = 1.0
    ) -> None:
        self.concurrency = concurrency
        self.queue_limit = queue_limit
        self.running = 0
        self._line: deque[Turn] = deque()
        self._mean_service_seconds = initial_service_seconds

    @property
    def waiting(self) -> int:
        return len(self._line)

    def retry_after_seconds(self) -> int:
        return retry_after_seconds(self.waiting, self.concurrency, self._mean_service_seconds)

    def enter(self) -> Turn:
        """Take a slot or a place in line.

        Raises:
            QueueFullError: there is neither.
        """
        turn = Turn()
        if self.running < self.concurrency:
            self._grant(turn)
        elif len(self._line) < self.queue_limit:
            self._line.append(turn)
        else:
            raise QueueFullError(self.retry_after_seconds())
        return turn

    def give_up(self, turn: Turn) -> None:
        """Leave the line; without effect for who already has a slot."""
        if not turn.settled:
            self._line.remove(turn)
            turn.settle(granted=False)

    def release(self, service_seconds: float) -> None:
        """Give a slot back after so many seconds of use; the first in line gets it."""
        self._mean_service_seconds += _MEAN_WEIGHT * (service_seconds - self._mean_service_seconds)
        self.running -= 1
        if self._line:
            self._grant(self._line.popleft())

    def _grant(self, turn: Turn) -> None:
        self.running += 1
        turn.settle(granted=True)
