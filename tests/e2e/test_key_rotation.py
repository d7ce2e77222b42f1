"""Keys of the issuer change: the new one is followed, the withdrawn one refused, no stream ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from infra.local import tokens
from infra.local.topology import SYSTEM
from infra.local.up import GATEWAY_AUTHORITY
from tests.e2e.figures import note
from tests.e2e.lab import Caller, Lab, Running, asking
from tests.e2e.load import Target
from voicemesh.contract import TTS_PATH

LIMIT_SECONDS: Final = 360
STREAMS: Final = 40
STREAM_SECONDS: Final = 320
"""Longer than it takes until every proxy has fetched the keys again."""

ASKED_EACH_TIME: Final = 4
TAKEN: Final = 405
"""The server itself answers so to GET: then every proxy on the way took the token."""

REFUSED: Final = 401
PUBLIC_PORT: Final = 30043
PUBLIC_HOST: Final = "tts.voicemesh.localhost"
VOICE: Final = "guarded"


@dataclass
class Rotation:
    """Replaces a key that only verifies, and watches from when on each of the two counts or not.

    It asks the environment's own gateway and voice, which no test makes fetch keys any sooner.

    Attributes:
        place: who asks.
        changes: whether the issuer learns of it; otherwise nothing may come of it.
        followed_seconds: after so long the new key counted everywhere.
        refused_seconds: after so long the withdrawn key counted nowhere.
        over: whether both is so, or it is too late.
    """

    place: Caller
    changes: bool = True
    followed_seconds: float | None = None
    refused_seconds: float | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until it is over."""
        files = tokens.token_files()
        withdrawn, published = files.keys[-1 if self.changes else 0], tokens.new_key()
        begun = time.monotonic()
        if self.changes:
            files.publish(published)
            files.withdraw(withdrawn)
        new, old = files.token(key=published), files.token(key=withdrawn)
        while not self.over.is_set() and time.monotonic() - begun < LIMIT_SECONDS + 5:
            if self.followed_seconds is None and self._statuses(new) == {TAKEN}:
                self.followed_seconds = time.monotonic() - begun
            if self.refused_seconds is None and self._statuses(old) == {REFUSED}:
                self.refused_seconds = time.monotonic() - begun
            if self.followed_seconds is not None and self.refused_seconds is not None:
                break
            self.over.wait(2)
        self.over.set()

    def _statuses(self, token: str) -> set[int | None]:
        request = asking(path=TTS_PATH, method="GET", token=token, count=ASKED_EACH_TIME)
        return {answer.status for answer in self.place.load(request)}

    def check_followed(self) -> float:
        """Seconds until the new key counted."""
        self.over.wait(LIMIT_SECONDS + 30)
        assert self.followed_seconds is not None, "the new key is not followed"
        assert self.followed_seconds <= LIMIT_SECONDS
        return self.followed_seconds

    def check_refused(self) -> float:
        """Seconds until the withdrawn key did not count any more."""
        self.over.wait(LIMIT_SECONDS + 30)
        assert self.refused_seconds is not None, "the withdrawn key is not refused"
        assert self.refused_seconds <= LIMIT_SECONDS
        return self.refused_seconds


@dataclass
class Rotations:
    """What runs while other tests do: a rotation, one that the issuer does not learn of, and
    streams that began before."""

    real: Rotation
    unknown: Rotation
    streams: Running


@pytest.fixture(scope="session")
def rotations(lab: Lab) -> Iterator[Rotations]:
    """Rotations that have begun, and streams that had before."""
    stream = lab.asking({"chunks": STREAM_SECONDS, "size": 64, "pause_ms": 1000}, count=STREAMS)
    streams = lab.public(VOICE).start(
        stream, concurrency=STREAMS, timeout_seconds=STREAM_SECONDS + 60
    )
    target = Target(SYSTEM.address, PUBLIC_PORT, PUBLIC_HOST, str(GATEWAY_AUTHORITY))
    place = Caller(lab.public().namespace, target)
    begun = Rotations(Rotation(place), Rotation(place, changes=False), streams)
    threads = [threading.Thread(target=it.run, daemon=True) for it in (begun.real, begun.unknown)]
    for thread in threads:
        thread.start()
    yield begun
    streams.kill()
    for rotation, thread in zip((begun.real, begun.unknown), threads, strict=True):
        rotation.over.set()
        thread.join()


def test_the_keys_of_the_issuer_change(rotations: Rotations) -> None:
    time_passed = rotations.real.over.wait(1)
    assert not time_passed, "proxies fetch keys every five minutes, not at once"


@pytest.mark.late
def test_a_new_key_is_followed_and_a_withdrawn_one_refused_within_six_minutes(
    rotations: Rotations,
) -> None:
    note("identity", "new key followed after", rotations.real.check_followed(), "s")
    note("identity", "withdrawn key refused after", rotations.real.check_refused(), "s")


@pytest.mark.late
def test_no_stream_ends_because_keys_change(rotations: Rotations) -> None:
    answers = rotations.streams.finish()
    broken = [answer for answer in answers if not answer.is_good]
    assert (len(answers), broken) == (STREAMS, [])


@pytest.mark.late
def test_control_keys_that_the_issuer_does_not_know_change_nothing(rotations: Rotations) -> None:
    with pytest.raises(AssertionError, match="the new key is not followed"):
        rotations.unknown.check_followed()
    with pytest.raises(AssertionError, match="the withdrawn key is not refused"):
        rotations.unknown.check_refused()
