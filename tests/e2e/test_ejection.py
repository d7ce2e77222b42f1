"""Failing pods are left alone by the proxies that call them, and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.e2e.environment import eventually
from tests.e2e.figures import note
from tests.e2e.lab import Lab, Running, Upstream
from tests.e2e.load import Answer
from tests.e2e.proxies import cluster_of, ejected, hosts
from tests.e2e.scripted_upstream.server import VARIANT_HEADER, Script
from voicemesh import contract

POOLS = "pools"
"""A voice with five pods, a canary of one, and a pool for VIP callers of weight 0."""

NARROW = "narrow"
"""A voice with one pod and nothing else."""

CONSECUTIVE_ERRORS = 3
BASE_SECONDS = 6
INTERVAL_SECONDS = 1
"""When both voices eject, and for how long."""

MARGIN_SECONDS = 2
FAST_SECONDS = 0.1
PER_SECOND = 25
"""Requests, one after the other: none is in flight when the one before has ejected a pod."""

MERGE_SECONDS = 1.0
"""Envoy tells its threads of a change to a cluster's pods at once, and gathers those of the second
after it: a further pod may be sent requests for so long after it was ejected.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto (look for
update_merge_window)"""

SLACK_SECONDS = 0.3
NO_HOST = "no healthy upstream"
MAX_PERCENT = "maxEjectionPercent"


def speak(lab: Lab, voice: str, subset: str, count: int, **how: Any) -> list[Answer]:
    """Requests to a subset of a voice, one after the other."""
    asked = asks_for(voice, subset)
    return lab.load(lab.asking(headers=asked, count=count), voice=voice, **how)


def asks_for(voice: str, subset: str) -> dict[str, str]:
    """The header by which the voice with several subsets lets one be chosen."""
    return {} if voice == NARROW else {contract.VARIANT_HEADER: subset}


def check_failing_pod_is_left_alone(lab: Lab, voice: str, pod: str) -> list[Answer]:
    """A pod that fails gets three requests of a proxy, and no further one before its time.

    Returns:
        The answers to all requests but those three.
    """
    server = Upstream(pod)
    everyone_is_in(lab, voice, "stable")
    server.forget()
    asked = lab.asking(headers=asks_for(voice, "stable"))
    running = lab.start(asked, voice=voice, per_second=PER_SECOND, seconds=60)
    with failing([server]), stopping(running):
        eventually(lambda: pod in pods_out(lab, voice, "stable"), 6, f"{pod} is ejected")
    received = server.counts()["total"]
    within = BASE_SECONDS + INTERVAL_SECONDS + MARGIN_SECONDS
    with stopping(running):
        eventually(lambda: server.counts()["total"] > received, within, f"{pod} returns")
    answers = running.stop()
    others = [answer for answer in answers if answer.status != 500]
    assert len(answers) - len(others) == received == CONSECUTIVE_ERRORS
    times = sorted(request["started"] for request in server.seen())
    away = times[received] - times[received - 1]
    assert away >= BASE_SECONDS, f"the pod was sent a request after {away:.1f} s"
    note("ejection", f"pod of {voice} away, of {BASE_SECONDS} s", away, "s")
    return others


@contextmanager
def stopping(running: Running) -> Iterator[None]:
    """Ends what is being sent where something fails."""
    try:
        yield
    except BaseException:
        running.kill()
        raise


def pods_out(lab: Lab, voice: str, subset: str) -> set[str]:
    """Names of the pods that the gateway has ejected from a subset."""
    (gateway,) = lab.gateways().values()
    addresses = ejected(gateway, voice, subset)
    return {pod.metadata.name for pod in lab.pods(voice) if pod.status.pod_ip in addresses}


def everyone_is_in(lab: Lab, voice: str, subset: str) -> None:
    """Awaits that no pod of a subset is out, all threads know it, and none has failed since."""
    eventually(lambda: not pods_out(lab, voice, subset), 20, "no pod is ejected")
    seconds = MERGE_SECONDS + SLACK_SECONDS
    answers = lab.load(
        lab.asking(headers=asks_for(voice, subset)), voice=voice, per_second=50, seconds=seconds
    )
    assert all(answer.is_good for answer in answers)


def resize(lab: Lab, size: int) -> dict[str, Upstream]:
    """Gives the stable pool as many pods, and awaits that the gateway knows them all."""
    (gateway,) = lab.gateways().values()
    lab.environment.apps.patch_namespaced_deployment_scale(
        f"{POOLS}-stable", lab.voices[POOLS], {"spec": {"replicas": size}}
    )

    def is_of_size() -> bool:
        addresses = {pod.status.pod_ip for pod in lab.pods(POOLS, "stable")}
        known = hosts(gateway, POOLS, "stable").keys()
        return len(addresses) == size and addresses == known

    eventually(is_of_size, 90, f"a pool of {size}")
    return lab.upstreams(POOLS, "stable")


@pytest.fixture
def five(lab: Lab) -> dict[str, Upstream]:
    """The servers of the stable pool, all five."""
    return resize(lab, 5)


@contextmanager
def failing(servers: Sequence[Upstream], status: int = 500) -> Iterator[None]:
    """For a while, servers fail whatever they are asked for."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.always)
            server.always(status=status)
        yield


@contextmanager
def changed_subset(lab: Lab, voice: str, name: str, changes: Mapping[str, Any]) -> Iterator[None]:
    """For a while, a subset of a voice's DestinationRule has these fields."""
    namespace = lab.voices[voice]
    before = known(lab, voice, name)
    subsets = lab.read("DestinationRule", namespace, voice)["spec"]["subsets"]
    changed = [{**it, **changes} if it["name"] == name else it for it in subsets]
    with lab.patched("DestinationRule", namespace, voice, {"subsets": changed}):
        eventually(lambda: known(lab, voice, name) != before, 20, "the gateway has the change")
        yield
    eventually(lambda: known(lab, voice, name) == before, 20, "the gateway has the rule again")


def known(lab: Lab, voice: str, subset: str) -> tuple[dict[str, Any], set[str]]:
    """What the gateway has of a subset: its cluster, and the addresses of its pods."""
    (gateway,) = lab.gateways().values()
    return cluster_of(gateway, voice, subset), set(hosts(gateway, voice, subset))


def ejecting_up_to(lab: Lab, voice: str, percent: int | None) -> Any:
    """For a while, as large a share of the stable pool may be ejected; None for Envoy's own."""
    subsets = lab.read("DestinationRule", lab.voices[voice], voice)["spec"]["subsets"]
    (policy,) = (it["trafficPolicy"] for it in subsets if it["name"] == "stable")
    detection = {key: it for key, it in policy["outlierDetection"].items() if key != MAX_PERCENT}
    share = {} if percent is None else {MAX_PERCENT: percent}
    detection = {**detection, **share}
    return changed_subset(
        lab, voice, "stable", {"trafficPolicy": {**policy, "outlierDetection": detection}}
    )


def test_a_single_failing_pod_is_left_alone_and_its_callers_are_answered_at_once(lab: Lab) -> None:
    (pod,) = lab.upstreams(NARROW)
    stream = lab.start(lab.asking(Script(chunks=12, pause_ms=1000)), voice=NARROW)
    eventually(lambda: Upstream(pod).counts()["open"] == 1, 20, "a stream has begun")
    others = check_failing_pod_is_left_alone(lab, NARROW, pod)
    assert [answer.outcome for answer in stream.finish()] == ["complete"]
    check_answered_at_once([answer for answer in others if not answer.is_good])
    assert all(answer.is_good for answer in speak(lab, NARROW, "stable", 20))


def check_no_request_follows(server: Upstream) -> float:
    """None comes later than a second after the third; when that was."""
    times = sorted(request["started"] for request in server.seen())
    third = times[CONSECUTIVE_ERRORS - 1]
    late = [each - third for each in times if each - third > MERGE_SECONDS + SLACK_SECONDS]
    assert not late, f"requests came {late} s after the third"
    return third


def check_answered_at_once(answers: Sequence[Answer]) -> None:
    """Nobody waits for a pool without a pod that works."""
    assert Counter((answer.status, answer.text) for answer in answers) == {
        (503, NO_HOST): len(answers)
    }
    slowest = sorted(answer.first_byte_seconds for answer in answers)[len(answers) * 9 // 10]
    assert slowest < FAST_SECONDS, f"one in ten waited for {slowest:.2f} s"
    note("ejection", "p90 of an answer when all pods are ejected", slowest * 1e3, "ms")


def test_a_pod_is_never_ejected_where_nobody_says_how_many_may_be(
    lab: Lab, five: dict[str, Upstream]
) -> None:
    pod = next(iter(five))
    with (
        ejecting_up_to(lab, POOLS, None),
        pytest.raises(AssertionError, match=f"{pod} is ejected"),
    ):
        check_failing_pod_is_left_alone(lab, POOLS, pod)


def test_half_of_a_pool_that_fails_stays_and_recovers_when_it_does(
    lab: Lab, five: dict[str, Upstream]
) -> None:
    servers = list(five.values())
    with failing(servers, 503):
        answers = speak(lab, POOLS, "stable", 40)
        assert {answer.status for answer in answers} == {503}
        assert len(pods_out(lab, POOLS, "stable")) == len(servers) // 2
    assert all(answer.is_good for answer in speak(lab, POOLS, "stable", 20))


def test_a_pool_that_may_be_emptied_answers_at_once_and_recovers(
    lab: Lab, five: dict[str, Upstream]
) -> None:
    servers = list(five.values())
    with ejecting_up_to(lab, POOLS, 100):
        everyone_is_in(lab, POOLS, "stable")
        with failing(servers):
            for server in servers:
                server.forget()
            answers = speak(lab, POOLS, "stable", 300, per_second=100)
            third = [check_no_request_follows(server) for server in servers]
        empty = max(third) + MERGE_SECONDS + SLACK_SECONDS
        check_answered_at_once([answer for answer in answers if answer.started > empty])
        everyone_is_in(lab, POOLS, "stable")
        assert all(answer.is_good for answer in speak(lab, POOLS, "stable", 20))


def check_ejected_canary_costs_nobody_a_request(lab: Lab) -> None:
    """A canary of one pod fails three requests; those after it go to the stable pods."""
    everyone_is_in(lab, POOLS, "canary")
    (server,) = lab.upstreams(POOLS, "canary").values()
    with failing([server]):
        first = speak(lab, POOLS, "canary", CONSECUTIVE_ERRORS, per_second=PER_SECOND)
        assert {answer.status for answer in first} == {500}
        asked = speak(lab, POOLS, "canary", 100)
        shared = lab.load(lab.asking(count=50), voice=POOLS)
        back = first[-1].ended + BASE_SECONDS
        by = answered_by([answer for answer in [*asked, *shared] if answer.ended < back])
        assert by.keys() == {(200, "stable")}, f"while the canary is away: {by}"

    def canary_answers() -> bool:
        return answered_by(speak(lab, POOLS, "canary", 1)) == {(200, "canary"): 1}

    eventually(canary_answers, BASE_SECONDS + INTERVAL_SECONDS + MARGIN_SECONDS, "it returns")
    assert answered_by(speak(lab, POOLS, "canary", 20)) == {(200, "canary"): 20}


def answered_by(answers: Sequence[Answer]) -> dict[tuple[int | None, str | None], int]:
    """How often each variant answered with each status."""
    return dict(Counter((it.status, it.headers.get(VARIANT_HEADER)) for it in answers))


def test_an_ejected_canary_costs_nobody_a_request(lab: Lab) -> None:
    check_ejected_canary_costs_nobody_a_request(lab)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"labels": {contract.VARIANT_LABEL: "canary"}}, "500"),
        ({"labels": {contract.APP_LABEL: POOLS}}, "vip"),
    ],
    ids=["alone", "with the pool for VIP callers"],
)
def test_a_canary_that_falls_back_wrongly_is_noticed(
    lab: Lab, changes: Mapping[str, Any], seen: str
) -> None:
    with (
        changed_subset(lab, POOLS, "canary", changes),
        pytest.raises(AssertionError, match=f"while the canary is away: .*{seen}"),
    ):
        check_ejected_canary_costs_nobody_a_request(lab)


@pytest.mark.parametrize("size", [5, 3, 2])
def test_a_failing_pod_of_several_is_left_alone_and_returns(lab: Lab, size: int) -> None:
    pod = next(iter(resize(lab, size)))
    others = check_failing_pod_is_left_alone(lab, POOLS, pod)
    assert all(answer.is_good for answer in others)
