"""Tenants are served for a while, while pods die and gateway, weights and policies change.

Whatever fails must be the doing of a pod that was killed; nothing else may cost a request, and
afterwards proxies and servers hold no more than before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.access_log import Entry
from tests.e2e.environment import eventually
from tests.e2e.figures import note
from tests.e2e.lab import Lab
from tests.e2e.load import Answer
from tests.e2e.scripted_upstream.server import POD_HEADER, Script
from tests.e2e.soak import CALLER, Held, Record, Soak, held, is_doing_of, run_soak

SHORT_SECONDS: Final = 120
LONG_SECONDS: Final = 900
CONTROL_SECONDS: Final = 12
WARM_UP_SECONDS: Final = 30
KEPT_CONNECTIONS: Final = 16
"""As many as there are requests at once to a voice: a pool keeps those that it ever needed."""

DRAINED_SECONDS: Final = 720
"""By then, nothing drains any more: two minutes longer than the mesh lets a stream take."""


def check_every_failure_is_of_a_kill(record: Record) -> None:
    unmatched = [
        _told(answer, record.entries.get(answer.path))
        for answer in record.failures
        if not any(
            is_doing_of(kill, answer, record.entries.get(answer.path)) for kill in record.kills
        )
    ]
    changes = [f"{at:.3f} {change}" for at, change in record.changes]
    told = "\n".join([*unmatched[:10], "changes:", *changes])
    assert not unmatched, f"{len(unmatched)} failures that no kill explains:\n{told}"


def _told(answer: Answer, entry: Entry | None) -> str:
    pod, logged = answer.headers.get(POD_HEADER), entry.text if entry else "not logged"
    seen = f"{answer.status} {answer.outcome} {answer.error} of {pod} at {answer.ended:.3f}"
    return f"{answer.tag} {answer.path}: {seen}: {logged}"


def check_nothing_is_kept(
    before: dict[str, dict[str, Held]], lab: Lab, within_seconds: float = 60, drained: bool = False
) -> dict[str, dict[str, Held]]:
    """What is held after the load is no more than what was held after a little of it.

    Args:
        before: what was held then.
        lab: the lab.
        within_seconds: when, at the latest.
        drained: whether nothing of what has changed drains any more, either.
    """

    def settled() -> dict[str, dict[str, Held]]:
        now = held(lab)
        for kind, processes in now.items():
            most_files = max(it.files for it in before[kind].values())
            most_mib = max(it.memory_mib for it in before[kind].values())
            for pod, it in processes.items():
                assert it.streams == 0, f"{kind} {pod} still has {it.streams} streams"
                assert not (drained and it.draining), f"{kind} {pod}: {it.draining} files drain"
                assert it.files <= most_files + KEPT_CONNECTIONS, (
                    f"{kind} {pod}: {it.files} files, {most_files} before"
                )
                assert it.memory_mib <= most_mib * 1.25 + 8, (
                    f"{kind} {pod}: {it.memory_mib:.0f} MiB, {most_mib:.0f} before"
                )
        return now

    return eventually(settled, within_seconds, "everything is as before")


def all_steps(soak: Soak) -> list[Callable[[], None]]:
    return [
        soak.shift_weights,
        lambda: soak.kill("steady"),
        soak.change_policy,
        soak.shift_weights,
        lambda: soak.kill("chorus"),
        soak.restart_gateway,
        soak.change_policy,
    ]


def quiet_steps(soak: Soak) -> list[Callable[[], None]]:
    # A gateway that has served other tests still has their connections.
    return [soak.restart_gateway, soak.change_policy, soak.shift_weights]


@pytest.mark.timeout(LONG_SECONDS + DRAINED_SECONDS + 300)
@pytest.mark.late
def test_only_kills_cost_requests_and_nothing_is_kept(
    lab: Lab, pytestconfig: pytest.Config
) -> None:
    long = pytestconfig.getoption("--soak")
    seconds = LONG_SECONDS if long else SHORT_SECONDS
    check_every_failure_is_of_a_kill(run_soak(lab, WARM_UP_SECONDS, quiet_steps))
    before = held(lab)
    record = run_soak(lab, seconds, all_steps)
    changes = [change for _, change in record.changes]
    for kind in dict.fromkeys(change.split()[0] for change in changes):
        note("soak", f"times {kind}", sum(change.startswith(kind) for change in changes))
    note("soak", "requests", len(record.answers), f"in {seconds} s")
    note("soak", "requests that failed with a pod that was killed", len(record.failures))
    check_every_failure_is_of_a_kill(record)
    assert record.kills
    after = check_nothing_is_kept(before, lab)
    if long:
        after = check_nothing_is_kept(before, lab, DRAINED_SECONDS, drained=True)
    for kind, processes in after.items():
        for what in ("files", "memory_mib"):
            was = max(getattr(it, what) for it in before[kind].values())
            now = max(getattr(it, what) for it in processes.values())
            note("soak", f"{kind}: {what}", f"{was:.0f} → {now:.0f}")


@pytest.mark.late
def test_a_kill_that_nobody_recorded_would_be_noticed(lab: Lab) -> None:
    def unrecorded(soak: Soak) -> list[Callable[[], None]]:
        return [lambda: soak.kill("steady", recorded=False)]

    record = run_soak(lab, CONTROL_SECONDS, unrecorded)
    with pytest.raises(AssertionError, match="failures that no kill explains"):
        check_every_failure_is_of_a_kill(record)


@pytest.mark.late
def test_streams_that_do_not_end_would_be_noticed(lab: Lab) -> None:
    lab.inside("steady", account=CALLER)
    before = held(lab)
    streams = lab.start(lab.asking(Script(hang=True), count=3), voice="steady", concurrency=3)
    try:
        servers = lab.upstreams("steady").values()
        eventually(lambda: sum(it.counts()["open"] for it in servers) == 3, what="they are open")
        with pytest.raises(AssertionError, match="still has 3 streams"):
            check_nothing_is_kept(before, lab, within_seconds=3)
    finally:
        streams.kill()
    check_nothing_is_kept(before, lab)
