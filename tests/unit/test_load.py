"""What end-to-end tests send requests with, and the server that answers them, tell the truth."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.access_log import Entry
from tests.e2e.figures import note, recorded
from tests.e2e.lab import asking, separate_share
from tests.e2e.load import Answer, Load, Request, Spec, Target
from tests.e2e.scripted_upstream.server import (
    Script,
    Seen,
    State,
    WatchedConnection,
    administered,
    body_bytes,
)
from tests.e2e.soak import Kill, is_doing_of


def sent(
    *requests: Request, always: Script | None = None, **how: Any
) -> tuple[list[Answer], State]:
    """Sends requests to a server of their own; their answers, and what it saw."""

    async def send() -> tuple[list[Answer], State]:
        loop, state = asyncio.get_running_loop(), State()
        state.script = always
        server = await loop.create_server(lambda: WatchedConnection(state), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answers = await Load(Spec(Target("127.0.0.1", port, "a.test"), requests, **how)).run()
        # The server learns that its clients have left.
        while state.open:
            await asyncio.sleep(0.01)
        server.close()
        return answers, state

    return asyncio.run(send())


WHOLE = Script(chunks=3, size=20)


@pytest.mark.parametrize(
    ("script", "outcome", "size"),
    [
        (WHOLE, "complete", 60),
        (Script(chunks=3, size=20, sse=True), "complete", 102),
        (Script(chunks=3, size=20, length=60), "complete", 60),
        (Script(chunks=3, size=20, until_close=True), "complete", 60),
        (Script(chunks=0), "complete", 0),
        (Script(chunks=3, size=20, end="truncate"), "truncated", 60),
        (Script(chunks=3, size=20, length=61, end="truncate"), "truncated", 60),
        (Script(chunks=3, size=20, until_close=True, end="truncate"), "complete", 60),
        (Script(reset=True), "closed", 0),
    ],
)
def test_an_answer_ends_as_its_script_says(script: Script, outcome: str, size: int) -> None:
    (answer,), _ = sent(asking(script))
    assert (answer.outcome, answer.size) == (outcome, size)
    assert answer.sha256 == hashlib.sha256(body_bytes(script) if size else b"").hexdigest()


def test_a_reset_among_chunks_is_no_end() -> None:
    (answer,), _ = sent(asking(Script(chunks=3, pause_ms=20, end="reset")))
    assert (answer.status, answer.outcome) == (200, "truncated")


def test_status_and_headers_are_those_of_the_script() -> None:
    (answer,), _ = sent(asking(Script(status=429, headers={"retry-after": "7"})))
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert not answer.is_good


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "OPTIONS"])
def test_any_method_and_path_is_answered_with_what_reached_the_server(method: str) -> None:
    (answer,), _ = sent(asking(method=method, path="/any/path?x=1", headers={"x-own": "a"}))
    assert answer.is_good
    if method != "HEAD":
        assert answer.json["method"] == method
        assert answer.json["path"] == "/any/path?x=1"
        assert answer.json["headers"]["x-own"] == "a"


def test_an_unknown_field_of_a_script_is_refused() -> None:
    (answer,), _ = sent(asking({"chunk": 3}))
    assert answer.status == 400
    assert "chunk" in answer.text


def test_chunks_are_sent_at_their_times() -> None:
    script = Script(chunks=4, size=20, pause_ms=30, gaps={"2": 100})
    (answer,), _ = sent(asking(script))
    times = [when - answer.started for when, _ in answer.arrivals]
    assert [size for _, size in answer.arrivals] == [20] * 4
    assert times[1] >= 0.03
    assert times[2] >= 0.16


def test_a_connection_serves_one_request_after_the_other() -> None:
    answers, _ = sent(asking(WHOLE, count=3), asking(Script(chunks=1, until_close=True), count=2))
    assert [answer.connection for answer in answers] == [1, 1, 1, 1, 2]
    assert all(answer.is_good for answer in answers)


def test_a_client_that_leaves_is_seen_to_leave() -> None:
    endless = Script(chunks=10_000, pause_ms=10)
    answers, state = sent(
        asking(endless, probe="bytes", leave_after_bytes=3_000),
        asking(endless, probe="time", leave_after_ms=50),
        asking(Script(hang=True), probe="hangs", leave_after_ms=50),
        concurrency=3,
    )
    assert [answer.outcome for answer in answers] == ["left"] * 3
    assert {seen.probe: seen.outcome for seen in state.seen} == dict.fromkeys(
        ("bytes", "time", "hangs"), "aborted"
    )


def test_requests_are_counted_by_their_probes() -> None:
    _, state = sent(asking(probe="a", count=3), asking(probe="b", count=2), concurrency=5)
    assert state.counts == {"a": 3, "b": 2}
    asked = Seen("GET", "/seen?probe=a", {}, 0.0)
    assert len(administered(state, asked, b"")["requests"]) == 3


def test_a_script_for_all_takes_the_place_of_what_requests_ask_for() -> None:
    (answer,), _ = sent(asking(WHOLE), always=Script(status=503))
    assert (answer.status, answer.size > 60) == (503, True)


def test_messages_come_back_on_a_websocket() -> None:
    sizes = [0, 5, 125, 126, 70_000]
    (answer,), _ = sent(asking(messages=sizes))
    assert (answer.status, answer.outcome) == (101, "complete")
    assert [size for _, size in answer.arrivals] == sizes


def test_messages_of_a_server_come_on_a_websocket() -> None:
    (answer,), _ = sent(asking(WHOLE, awaited_messages=3))
    assert (answer.outcome, answer.sha256) == (
        "complete",
        hashlib.sha256(body_bytes(WHOLE)).hexdigest(),
    )


def test_a_body_in_parts_is_sent_back_as_it_comes() -> None:
    (answer,), _ = sent(asking(Script(echo=True), body_parts=[10, 2_000, 30], body_pause_ms=20))
    assert [size for _, size in answer.arrivals] == [10, 2_000, 30]


def test_where_nobody_listens_there_is_no_connection() -> None:
    spec = Spec(Target("127.0.0.1", 9, "a.test"), [asking()])
    (answer,) = asyncio.run(Load(spec).run())
    assert answer.outcome == "unconnected"
    assert "ConnectionRefused" in answer.error


@pytest.mark.parametrize(
    ("arrivals", "share"),
    [
        ([4, 4, 4, 4], 1),
        ([2, 2, 4, 4, 4], 1),
        ([8, 4, 4], 0.5),
        ([3, 2, 3, 4, 4], 0.5),
        ([16], 0),
    ],
)
def test_chunks_are_separate_if_no_read_has_bytes_of_two(arrivals: list[int], share: float) -> None:
    answer = Answer("", arrivals=[(float(when), size) for when, size in enumerate(arrivals)])
    assert separate_share(answer, [4] * 4) == share


LOGGED = (
    "2026-11-22T23:57:52.06Z stdout F [2026-11-22T23:57:51.267Z] "
    '"POST /v1/audio/speech?7 HTTP/1.1" 200 UC '
    'upstream_reset_after_response_started{connection_termination} - "-" 0 1503 1 1 '
    '"10.245.0.200" "-" "5281aee0" "a.test" "10.244.1.29:8080" outbound|8080|stable|a '
    "10.244.1.10:54350 10.244.1.10:443 10.245.0.200:37896 a.test default"
)


def test_a_line_of_the_access_log_is_understood() -> None:
    entry = Entry.parse(LOGGED)
    assert entry is not None
    assert (entry.path, entry.status, entry.upstream) == ("/v1/audio/speech?7", 200, "10.244.1.29")
    assert entry.flags == {"UC"}
    assert Entry.parse("2026-11-22T23:57:52Z stdout F info Envoy proxy is ready") is None


KILL = Kill("a-1", "10.244.1.29", at=100.0)
CUT = {"x-pod": "a-1"}


@pytest.mark.parametrize(
    ("answer", "line", "explained"),
    [
        (Answer("", 99, 200, CUT, ended=100.1), LOGGED, True),
        (Answer("", 99, None, {}, ended=100.1), LOGGED, True),
        (Answer("", 101, None, {}, ended=101.1), LOGGED, True),
        (Answer("", 99, 200, {"x-pod": "a-2"}, ended=100.1), LOGGED, False),
        (Answer("", 99, 200, CUT, ended=99.9), LOGGED, False),
        (Answer("", 110, 200, CUT, ended=111), LOGGED, False),
        (Answer("", 99, 200, CUT, ended=100.1), LOGGED.replace("1.29:", "1.30:"), False),
        (Answer("", 99, 200, CUT, ended=100.1), LOGGED.replace(" UC ", " - "), False),
        (Answer("", 99, 200, CUT, ended=100.1), "not logged", False),
    ],
)
def test_a_failure_is_explained_by_pod_flag_and_time(
    answer: Answer, line: str, explained: bool
) -> None:
    assert is_doing_of(KILL, answer, Entry.parse(line)) is explained


def test_a_figure_replaces_the_one_of_before(tmp_path: Path) -> None:
    report = tmp_path / "build" / "figures.json"
    for value in (1, 2):
        note("unit", "a figure", value, "ms", report)
    note("unit", "another", 0.123456, "", report)
    assert [(it.name, it.value) for it in recorded(report)] == [
        ("a figure", 2),
        ("another", 0.1235),
    ]
    assert json.loads(report.read_text())[0]["unit"] == "ms"
