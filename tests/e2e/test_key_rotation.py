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
PUBLIC_PORT: Final = 30443
PUBLIC_HOST: Final = "tts.voicemesh.localhost"
VOICE: Final = "guarded"


@dataclass
class Rotation:
    """Replaces a key that only verifies, and watches from when on each of the two counts or not.

    It asks the environment's own gateway and voice, which no test makes fetch keys any sooner.
    """

    place: Caller
    followed_seconds: float | None = None
    refused_seconds: float | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until both is so, or too late."""
        files = tokens.token_files()
        withdrawn, published = files.keys[-1], tokens.new_key()
        begun = time.monotonic()
        files.publish(published)
        files.withdraw(withdrawn)
        new, old = files.token(key=published), files.token(key=withdrawn)
        while not self.over.is_set() and time.monotonic() - begun < LIMIT_SECONDS + 5:
            if self.followed_seconds is None and not self._is_refused(new):
                self.followed_seconds = time.monotonic() - begun
            if self.refused_seconds is None and self._is_refused(old):
                self.refused_seconds = time.monotonic() - begun
            if self.followed_seconds is not None and self.refused_seconds is not None:
                break
            self.over.wait(2)
        self.over.set()

    def _is_refused(self, token: str) -> bool:
        # The server itself answers GET with 405: then every proxy on the way took the token.
        request = asking(path=TTS_PATH, method="GET", token=token, count=ASKED_EACH_TIME)
        statuses = {answer.status for answer in self.place.load(request)}
        return statuses != {405}


@pytest.fixture(scope="session")
def rotation(lab: Lab) -> Iterator[tuple[Rotation, Running]]:
    """A rotation that has begun, and streams that had before."""
    stream = lab.asking({"chunks": STREAM_SECONDS, "size": 64, "pause_ms": 1000}, count=STREAMS)
    running = lab.public(VOICE).start(
        stream, concurrency=STREAMS, timeout_seconds=STREAM_SECONDS + 60
    )
    target = Target(SYSTEM.address, PUBLIC_PORT, PUBLIC_HOST, str(GATEWAY_AUTHORITY))
    watched = Rotation(Caller(lab.public().namespace, target))
    thread = threading.Thread(target=watched.run, daemon=True)
    thread.start()
    yield watched, running
    watched.over.set()
    thread.join()


def test_the_keys_of_the_issuer_change(rotation: tuple[Rotation, Running]) -> None:
    watched, _ = rotation
    time_passed = watched.over.wait(1)
    assert not time_passed, "proxies fetch keys every five minutes, not at once"


@pytest.mark.late
def test_a_new_key_is_followed_and_a_withdrawn_one_refused_within_six_minutes(
    rotation: tuple[Rotation, Running],
) -> None:
    watched, running = rotation
    answers = running.finish()
    watched.over.wait(LIMIT_SECONDS + 30)
    assert watched.followed_seconds is not None, "the new key is not followed"
    assert watched.refused_seconds is not None, "the withdrawn key is not refused"
    note("identity", "new key followed after", watched.followed_seconds, "s")
    note("identity", "withdrawn key refused after", watched.refused_seconds, "s")
    assert max(watched.followed_seconds, watched.refused_seconds) <= LIMIT_SECONDS
    whole = [answer for answer in answers if answer.is_good]
    assert len(whole) == len(answers) == STREAMS, [a for a in answers if not a.is_good]
