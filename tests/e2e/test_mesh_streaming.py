"""Nothing on the way holds a stream back, ends it, or hides that it was cut.

Each check runs through gateway and sidecar, and once more with the mesh or the server changed so
that it must fail.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from tests.e2e import metered, walled
from tests.e2e.environment import eventually
from tests.e2e.figures import note
from tests.e2e.lab import (
    DOMAIN,
    GATEWAY_NAMESPACE,
    TENANT,
    Caller,
    Lab,
    Running,
    new_probe,
    separate_share,
)
from tests.e2e.load import Answer, Request
from tests.e2e.scripted_upstream.server import Script, body_bytes, chunk_bytes, event_bytes

VOICE = "streams"
THROUGH = (VOICE, metered.VOICE, walled.VOICE)
"""Voices of the lab behind different gateways: a plain one, one that counts requests, and one with
a firewall."""
SPOKEN = json.dumps({"input": "Streams flow.", "voice": "alloy"})
LONG_PAUSE_SECONDS = 60
ABORT_SECONDS = 0.2
SEPARATE_SHARE = 0.99
RUNS = 8
LEAVING = 12
"""Clients that leave, one shortly after the other."""

COLLECTS_EVENTS = """
function envoy_on_response(it)
  if it:headers():get("content-type") == "text/event-stream" then it:body() end
end
"""

PACED = {
    "20 ms of PCM": Script(chunks=250, size=960, pause_ms=20),
    "16 KiB": Script(chunks=250, size=16_384, pause_ms=20),
    "a second of speech in four": Script(chunks=20, size=12_000, pause_ms=250),
    "small events": Script(chunks=250, size=200, pause_ms=20, sse=True),
}
"""As fast and as large as the promise goes: the server never sends faster than audio plays."""


@pytest.fixture(scope="session")
def long_pauses(lab: Lab) -> Iterator[dict[str, Running]]:
    """Streams that pause for long, which begin with the first test that asks for them."""
    begun = {
        name: lab.start(request, voice=VOICE, timeout_seconds=2 * LONG_PAUSE_SECONDS)
        for name, request in paused_requests(lab, LONG_PAUSE_SECONDS).items()
    }
    yield begun
    for running in begun.values():
        running.kill()


def paused_requests(lab: Lab, seconds: float) -> dict[str, Request]:
    """Streams of each kind that pause for so long."""
    milliseconds = seconds * 1000
    gap = {"2": milliseconds}
    return {
        "before the head": lab.asking(Script(chunks=4, head_ms=milliseconds)),
        "after the head": lab.asking(Script(chunks=4, first_ms=milliseconds)),
        "between chunks": lab.asking(Script(chunks=4, gaps=gap)),
        "between events": lab.asking(Script(chunks=4, sse=True, gaps=gap)),
        "between counted bytes": lab.asking(Script(chunks=4, gaps=gap, length=4096)),
        "on a WebSocket": lab.asking(messages=[5], message_pause_ms=milliseconds),
        "on a WebSocket that listens": lab.asking(Script(chunks=4, gaps=gap), awaited_messages=4),
    }


@pytest.fixture(scope="module", params=THROUGH)
def voice(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of these voices; the firewall is asked while it is the last one's turn."""
    asked = walled.Walled(lab).asked() if request.param == walled.VOICE else nullcontext()
    with asked:
        yield request.param


@pytest.mark.usefixtures("long_pauses")
def test_chunks_arrive_one_by_one_with_all_their_bytes_in_order(lab: Lab, voice: str) -> None:
    for name, share in check_chunks_arrive_separately(lab, voice).items():
        note("streaming", f"chunks of {voice!r} that arrived separately, {name}", share)


def check_chunks_arrive_separately(lab: Lab, voice: str = VOICE) -> dict[str, float]:
    """Returns the share of each stream in the best of its runs: a machine that is too busy to read
    in time joins chunks now and then, what collects them on the way does so each time."""
    best = dict.fromkeys(PACED, 0.0)
    for _ in range(RUNS):
        late = [name for name, share in best.items() if share < SEPARATE_SHARE]
        for name, share in separate_shares(lab, lab.public(voice), late).items():
            best[name] = max(best[name], share)
        if min(best.values()) >= SEPARATE_SHARE:
            return best
    straight = separate_shares(lab, lab.beside(voice), PACED)
    told = [f"{name}: {share:.1%} ({straight[name]:.1%})" for name, share in best.items()]
    raise AssertionError(f"too few arrived separately (without proxies): {', '.join(told)}")


def separate_shares(lab: Lab, caller: Caller, names: Iterable[str]) -> dict[str, float]:
    """Of each of these paced streams, the share of chunks that arrived separately."""
    scripts = {name: PACED[name] for name in names}
    requests = [lab.asking(script, tag=name, body=SPOKEN) for name, script in scripts.items()]
    answers = {answer.tag: answer for answer in caller.load(*requests, concurrency=len(requests))}
    for name, script in scripts.items():
        check_is_exact(answers[name], script)
    return {
        name: separate_share(answers[name], [len(part) for part in _parts(script)])
        for name, script in scripts.items()
    }


def check_is_exact(answer: Answer, script: Script) -> None:
    """The answer is whole, and its bytes are those that the server sent."""
    told = f"{answer.status}, {answer.outcome}, {answer.size} bytes, {answer.error}"
    assert answer.is_good, told
    assert answer.sha256 == hashlib.sha256(body_bytes(script)).hexdigest(), told


def _parts(script: Script) -> list[bytes]:
    make = event_bytes if script.sse else chunk_bytes
    return [make(number, script.size) for number in range(script.chunks or 0)]


def test_chunks_that_a_filter_collects_would_be_noticed(lab: Lab) -> None:
    with (
        sidecar_filter(lab, "collects", COLLECTS_EVENTS),
        pytest.raises(AssertionError, match=r"small events: \d\.\d%"),
    ):
        check_chunks_arrive_separately(lab)


def test_a_client_that_leaves_is_gone_for_the_server_within_200_ms(lab: Lab) -> None:
    slowest = check_abort_reaches_the_server(lab)
    note("streaming", "a client's leaving reaches the server", slowest * 1e3, "ms at the most")


def check_abort_reaches_the_server(lab: Lab) -> float:
    """The longest that it took, over some clients that leave at different moments."""
    (upstream,) = lab.upstreams(VOICE).values()
    script = Script(chunks=1000, size=4096, pause_ms=20)
    tags = [new_probe("leaving") for _ in range(LEAVING)]
    requests = [
        lab.asking(script, probe=tag, tag=tag, leave_after_ms=1000 + 37 * number)
        for number, tag in enumerate(tags)
    ]
    answers = lab.load(*requests, voice=VOICE, concurrency=len(requests))
    assert {(answer.status, answer.outcome) for answer in answers} == {(200, "left")}
    return max(_abort_seconds(upstream.seen, answer) for answer in answers)


def _abort_seconds(seen: Any, answer: Answer) -> float:
    def aborted() -> float:
        (request,) = seen(answer.tag)
        return request["ended"] if request["outcome"] == "aborted" else 0.0

    seconds = eventually(aborted, 10, f"the server learns of {answer.tag}") - answer.ended
    assert seconds <= ABORT_SECONDS, f"the server learned {seconds * 1e3:.0f} ms later"
    return seconds


def test_a_leaving_that_is_held_up_on_the_way_would_be_noticed(lab: Lab) -> None:
    with held_up(lab, LEAVING, seconds=3), pytest.raises(AssertionError, match="ms later"):
        check_abort_reaches_the_server(lab)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(Script(chunks=20, end="truncate"), id="no last chunk"),
        pytest.param(Script(chunks=20, end="reset"), id="reset among chunks"),
        pytest.param(Script(chunks=20, length=40_000, end="truncate"), id="fewer bytes than said"),
        pytest.param(
            Script(chunks=20, length=40_000, end="reset"), id="reset before the last byte"
        ),
        pytest.param(Script(chunks=20, sse=True, end="truncate"), id="no last event"),
    ],
)
def test_a_stream_that_is_cut_does_not_look_like_one_that_ends(lab: Lab, script: Script) -> None:
    check_cut_is_recognisable(lab, script)


def check_cut_is_recognisable(lab: Lab, script: Script) -> None:
    answer = lab.request(lab.asking(script), voice=VOICE)
    assert answer.status == 200
    assert answer.outcome == "truncated", f"a cut stream looks {answer.outcome}"
    sent = body_bytes(script)
    assert answer.size <= len(sent)


def test_a_cut_would_be_missed_where_a_body_ends_with_its_connection(lab: Lab) -> None:
    (upstream,) = lab.upstreams(VOICE).values()
    upstream.always(chunks=20, end="truncate", until_close=True)
    try:
        with pytest.raises(AssertionError, match="looks complete"):
            check_cut_is_recognisable(lab, Script(chunks=20, end="truncate"))
    finally:
        upstream.always()


def test_a_websocket_carries_messages_both_ways_while_it_is_open(lab: Lab, voice: str) -> None:
    sizes = [1, 125, 126, 960, 65_535, 70_000]
    request = lab.asking(messages=sizes, message_pause_ms=150)
    answer = lab.request(request, voice=voice)
    assert (answer.status, answer.outcome) == (101, "complete")
    assert [size for _, size in answer.arrivals] == sizes
    sent = [
        bytes((number + offset) % 256 for offset in range(size))
        for number, size in enumerate(sizes)
    ]
    assert answer.sha256 == hashlib.sha256(b"".join(sent)).hexdigest()
    times = [when for when, _ in answer.arrivals]
    between = [after - before for before, after in itertools.pairwise(times)]
    assert min(between) > 0.05, "messages came back together"


def test_an_upload_reaches_the_server_while_it_is_sent(lab: Lab) -> None:
    (upstream,) = lab.upstreams(VOICE).values()
    parts, probe = [16_384] * 20, new_probe("upload")
    answer = lab.request(lab.asking(probe=probe, body_parts=parts, body_pause_ms=50), voice=VOICE)
    assert answer.is_good
    assert answer.json["body_bytes"] == sum(parts)
    (request,) = upstream.seen(probe)
    arrivals = request["body_arrivals"]
    assert arrivals[-1][0] - arrivals[0][0] > 0.7, "it arrived at once"


@pytest.mark.late
def test_a_stream_survives_a_pause_of_a_minute(long_pauses: dict[str, Running]) -> None:
    check_pauses_survive(
        {name: running.finish() for name, running in long_pauses.items()}, LONG_PAUSE_SECONDS
    )


def check_pauses_survive(answers: Mapping[str, Sequence[Answer]], seconds: float) -> None:
    for name, (answer,) in answers.items():
        assert answer.outcome == "complete", (
            f"a pause {name} ended the stream: {answer.outcome}, {answer.status}"
        )
        assert answer.status in (200, 101), f"a pause {name} ended the stream with {answer.status}"
        assert answer.ended - answer.started >= seconds, name


def test_a_pause_that_a_timeout_ends_would_be_noticed(lab: Lab) -> None:
    seconds = 4
    with impatient(lab, "2s"):
        requests = paused_requests(lab, seconds)
        started = {name: lab.start(request, voice=VOICE) for name, request in requests.items()}
        answers = {name: running.finish() for name, running in started.items()}
    for name, answer in answers.items():
        with pytest.raises(AssertionError, match="ended the stream"):
            check_pauses_survive({name: answer}, seconds)


@contextmanager
def sidecar_filter(lab: Lab, name: str, code: str) -> Iterator[None]:
    """For a while, the voice's sidecar runs a filter written in Lua."""
    lua = {
        "name": f"envoy.filters.http.lua.{name}",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": code},
        },
    }
    manager = "envoy.filters.network.http_connection_manager"
    router = {"name": manager, "subFilter": {"name": "envoy.filters.http.router"}}
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": router}}},
        "patch": {"operation": "INSERT_BEFORE", "value": lua},
    }
    spec = {"workloadSelector": {"labels": {"app": VOICE}}, "configPatches": [patch]}
    (sidecar,) = lab.sidecars(VOICE).values()
    with lab.object("EnvoyFilter", TENANT, name, spec):
        eventually(lambda: lua["name"] in sidecar.config(), what="the sidecar has the filter")
        # Connections that there are keep the filters that they began with.
        _reconnect(lab)
        yield
    eventually(lambda: lua["name"] not in sidecar.config(), what="the sidecar is without it")
    _reconnect(lab)


def _reconnect(lab: Lab) -> None:
    """Lets the gateway open new connections to the voice, by changing its cluster and back."""
    (gateway,) = lab.gateways().values()
    timeout = {"tcp": {"connectTimeout": "7.7s"}}

    def changed() -> bool:
        clusters = json.loads(gateway.ask_admin("/config_dump?resource=dynamic_active_clusters"))
        ours = [
            it["cluster"] for it in clusters["configs"] if f"|{VOICE}." in it["cluster"]["name"]
        ]
        return any(cluster["connect_timeout"] == "7.700s" for cluster in ours)

    policy = {"trafficPolicy": {"connectionPool": timeout}}
    with lab.patched("DestinationRule", TENANT, VOICE, policy):
        eventually(changed, what="the gateway has another cluster")
    eventually(lambda: not changed(), what="the gateway has the cluster of before")


@contextmanager
def impatient(lab: Lab, timeout: str) -> Iterator[None]:
    """For a while, the gateway ends the voice's streams that are silent for so long."""
    vhost = {"name": f"{VOICE}.{DOMAIN}:443"}
    patch = {
        "applyTo": "HTTP_ROUTE",
        "match": {"context": "GATEWAY", "routeConfiguration": {"vhost": vhost}},
        "patch": {"operation": "MERGE", "value": {"route": {"idle_timeout": timeout}}},
    }
    (gateway,) = lab.gateways().values()
    with lab.object("EnvoyFilter", GATEWAY_NAMESPACE, "impatient", {"configPatches": [patch]}):
        eventually(
            lambda: '"idle_timeout": "2s"' in gateway.config(), what="the gateway is impatient"
        )
        yield
    eventually(lambda: '"idle_timeout": "2s"' not in gateway.config(), what="it is patient again")


@contextmanager
def held_up(lab: Lab, streams: int, seconds: float) -> Iterator[None]:
    """Once there are so many streams, the voice's sidecar stands still for a while."""
    (upstream,), (sidecar,) = lab.upstreams(VOICE).values(), lab.sidecars(VOICE).values()

    def hold_up() -> None:
        eventually(lambda: upstream.counts()["open"] >= streams, what="the streams are there")
        os.kill(sidecar.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(sidecar.pid, signal.SIGCONT)

    with ThreadPoolExecutor() as pool:
        holding = pool.submit(hold_up)
        yield
        holding.result()
