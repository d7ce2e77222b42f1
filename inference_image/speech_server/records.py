"""What is kept of one request while it lives: for its answer, the log and the metrics."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.types import Scope

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SCOPE_KEY = "voicemesh.record"


class Outcome(StrEnum):
    """How a speech request ended."""

    SERVED = "served"
    """All audio was sent."""
    REFUSED = "refused"
    """4xx: the client must change something."""
    SHED = "shed"
    """429: too much to do."""
    FAILED = "failed"
    """5xx before the first byte."""
    BROKEN = "broken"
    """The engine failed, or the drain ended, after the first byte: the connection was cut."""
    ABANDONED = "abandoned"
    """The client left."""


def outcome_of_status(status: int) -> Outcome:
    """The outcome that an answer without audio means."""
    if status == 429:
        return Outcome.SHED
    return Outcome.REFUSED if status < 500 else Outcome.FAILED


@dataclass
class RequestRecord:
    """Filled in by whoever knows; written down once, when the request has ended."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    outcome: Outcome = Outcome.FAILED
    voice: str = ""
    characters: int = 0
    first_audio_seconds: float | None = None
    audio_seconds: float = 0.0

    @classmethod
    def attach(cls, scope: Scope, client_request_id: str | None) -> RequestRecord:
        record = cls(well_formed_request_id(client_request_id))
        scope[_SCOPE_KEY] = record
        return record

    @staticmethod
    def of(scope: Scope) -> RequestRecord:
        return scope[_SCOPE_KEY]

    def age_seconds(self) -> float:
        return time.monotonic() - self.started


def well_formed_request_id(given: str | None) -> str:
    """The client's own id where it is safe to repeat in headers and logs, else a new one."""
    if given is not None and _WELL_FORMED_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex
