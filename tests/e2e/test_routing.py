"""Who is led where: by experiment, by tier, by weight, by voice; and what is copied for whom."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import figures
from tests.e2e.environment import eventually
from tests.e2e.lab import GATEWAY, GATEWAY_NAMESPACE, Caller, Lab, Running, Upstream, asking
from tests.e2e.load import Answer
from tests.e2e.routes import MARK_HEADER, Route, live, marked, rerouted, shared
from tests.e2e.scripted_upstream.server import POD_HEADER, Script, body_bytes
from tests.e2e.scripted_upstream.server import VARIANT_HEADER as ANSWERED_BY
from tests.evaluators.binomial import interval
from voicemesh.contract import (
    BASIC_SCOPE,
    METRICS_PATH,
    PAGE_PATH,
    PREMIUM_SCOPE,
    READY_PATH,
    TIER_HEADER,
    TTS_PATH,
    VARIANT_HEADER,
    VIP_TIER,
    VOICE_ID_HEADER,
    VOICES_PATH,
)
from voicemesh.service.traffic import VIP_CALLER, subset_by_voice

VOICE: Final = "routed"
WEIGHTS: Final = {"stable": 90, "experimental": 10}
FORGED: Final = {TIER_HEADER: VIP_TIER}

REQUESTS: Final = 4000
FORGED_REQUESTS: Final = 1000
CONNECTIONS: Final = 16

STREAMS: Final = 48
STEADY_PER_SECOND: Final = 200
REQUESTS_OF_A_STEP: Final = 400
STEPS: Final = tuple({"stable": 100 - share, "experimental": share} for share in (10, 30, 50, 100))
EFFECTIVE_SECONDS: Final = 1.0

AFFINE: Final = "familiar"
VOICE_IDS: Final = tuple(f"voice-{number}" for number in range(120))
REQUESTS_OF_A_VOICE: Final = 4
SLOW_MS: Final = 1000
UNNAMED_REQUESTS: Final = 600

COPIED: Final = "copied"


def variants(answers: Sequence[Answer]) -> Counter[str]:
    """How many answers each variant gave; all of them are good."""
    bad = [answer for answer in answers if not answer.is_good]
    assert not bad, f"{len(bad)} of {len(answers)} failed, as {bad[0]}"
    return Counter(answer.headers[ANSWERED_BY] for answer in answers)


def check_split(lab: Lab, caller: Caller) -> Counter[str]:
    """Requests are shared by weight, as exactly as chance allows."""
    counted = variants(caller.load(lab.asking(count=REQUESTS), concurrency=CONNECTIONS))
    for variant, weight in WEIGHTS.items():
        allowed, found = interval(REQUESTS, weight / 100), counted[variant]
        assert found in allowed, f"the split gives {variant} {found}, not {allowed}"
    assert counted.keys() == WEIGHTS.keys()
    return counted


def test_weights_hold_at_the_gateway(lab: Lab) -> None:
    counted = check_split(lab, lab.public(VOICE))
    _note("the canary's of 4,000 requests at the gateway", counted["experimental"])


def test_weights_hold_in_the_mesh(lab: Lab) -> None:
    counted = check_split(lab, lab.inside(VOICE))
    _note("the canary's of 4,000 requests in the mesh", counted["experimental"])


def test_five_percent_more_weight_are_noticed(lab: Lab) -> None:
    def more(routes: list[Route]) -> list[Route]:
        return shared(routes, {"stable": 85, "experimental": 15})

    with rerouted(lab, VOICE, more), pytest.raises(AssertionError, match="the split gives"):
        check_split(lab, lab.public(VOICE))


def check_experiment(lab: Lab, caller: Caller) -> None:
    """Whoever asks for the canary gets it, whatever the weights; nobody gets the VIP pool so."""
    wanted = lab.asking(headers={VARIANT_HEADER: "experimental"}, count=400)
    assert variants(caller.load(wanted, concurrency=8)) == {"experimental": 400}, "the experiment"
    refused = lab.asking(headers={VARIANT_HEADER: "vip"}, count=200)
    assert not variants(caller.load(refused, concurrency=8))["vip"]


def test_an_experiments_header_leads_to_its_variant_at_the_gateway(lab: Lab) -> None:
    check_experiment(lab, lab.public(VOICE))


def test_an_experiments_header_leads_to_its_variant_in_the_mesh(lab: Lab) -> None:
    check_experiment(lab, lab.inside(VOICE))


def test_without_its_route_an_experiments_header_leads_nowhere(lab: Lab) -> None:
    removed = rerouted(lab, VOICE, _without("experiment-experimental"))
    with removed, pytest.raises(AssertionError, match="the experiment"):
        check_experiment(lab, lab.public(VOICE))


def check_vip(lab: Lab) -> None:
    """Callers whose token claims the tier get the pool that is theirs."""
    request = lab.asking(token=lab.token(tier=VIP_TIER), count=400)
    assert variants(lab.load(request, voice=VOICE, concurrency=8)) == {"vip": 400}, "the claim"


def test_the_claim_of_a_vip_leads_to_the_stronger_pool(lab: Lab) -> None:
    check_vip(lab)


def test_without_its_route_the_claim_of_a_vip_leads_nowhere(lab: Lab) -> None:
    with rerouted(lab, VOICE, _without("vip")), pytest.raises(AssertionError, match="the claim"):
        check_vip(lab)


def check_forged_tier(lab: Lab) -> None:
    """A tier that a client writes into a header leads nobody into the VIP pool."""
    vip = lab.upstreams(VOICE, "vip").values()
    probe = uuid.uuid4().hex
    with_token = lab.asking(headers=FORGED, probe=probe, count=FORGED_REQUESTS)
    counted = variants(lab.load(with_token, voice=VOICE, concurrency=CONNECTIONS))
    assert not counted["vip"], f"forged: {counted['vip']} with a token reached the VIP pool"
    without = asking(headers=FORGED, probe=probe, count=FORGED_REQUESTS)
    answers = lab.load(without, voice=VOICE, concurrency=CONNECTIONS)
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {401: FORGED_REQUESTS}, f"forged: without a token {statuses}"
    assert not sum(server.counts()["by_probe"].get(probe, 0) for server in vip)


def test_a_forged_tier_has_no_effect_with_or_without_a_token(lab: Lab) -> None:
    check_forged_tier(lab)


def test_a_forged_tier_has_no_effect_in_the_mesh(lab: Lab) -> None:
    request = lab.asking(headers=FORGED, count=FORGED_REQUESTS)
    counted = variants(lab.inside(VOICE).load(request, concurrency=CONNECTIONS))
    assert not counted["vip"]


def test_a_route_that_matches_the_header_instead_of_the_claim_can_be_forged(lab: Lab) -> None:
    forgeable = rerouted(lab, VOICE, _by_tier_header)
    with forgeable, pytest.raises(AssertionError, match=r"forged: \d+ with a token reached"):
        check_forged_tier(lab)


def test_without_its_policy_the_gateway_refuses_nobody_without_a_token(lab: Lab) -> None:
    def refused() -> bool:
        answer = lab.request(asking(), voice=VOICE)
        return answer.status == 401

    with lab.without("AuthorizationPolicy", GATEWAY_NAMESPACE, f"{GATEWAY}-token"):
        eventually(lambda: not refused(), what="the policy has gone")
        with pytest.raises(AssertionError, match="forged: without a token"):
            check_forged_tier(lab)
    eventually(refused, what="the policy is back")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (PAGE_PATH, 200),
        (TTS_PATH, 200),
        (METRICS_PATH, 404),
        (READY_PATH, 404),
        ("/unknown", 404),
    ],
)
def test_the_gateway_passes_on_what_the_public_may_reach(lab: Lab, path: str, status: int) -> None:
    method = "POST" if path == TTS_PATH else "GET"
    assert lab.request(lab.asking(path=path, method=method), voice=VOICE).status == status


Apply = Callable[[Lab, Mapping[str, int]], None]


def apply_weights(lab: Lab, weights: Mapping[str, int]) -> None:
    """Gives the gateway's routes these weights; answers say under which they were led."""
    _apply(lab, weights, "public")


def check_shifts(lab: Lab, apply: Apply, steps: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Each step is in effect in time, and breaks no stream that there was before.

    Returns:
        Seconds from the API server's answer until each step was in effect.
    """
    script = Script(chunks=60 + 60 * len(steps), size=256, pause_ms=100)
    streamed = lab.asking(script, count=STREAMS)
    probe = uuid.uuid4().hex
    with ExitStack() as stack:
        stack.enter_context(_restored(lab))
        streams = stack.enter_context(
            _killed_on_failure(
                lab.start(streamed, voice=VOICE, concurrency=STREAMS, timeout_seconds=90)
            )
        )
        servers = list(lab.upstreams(VOICE).values())
        eventually(lambda: _open(servers) >= STREAMS, what="the streams have begun")
        steady = stack.enter_context(
            _killed_on_failure(
                lab.start(
                    lab.asking(probe=probe),
                    voice=VOICE,
                    concurrency=CONNECTIONS,
                    per_second=STEADY_PER_SECOND,
                    seconds=90,
                )
            )
        )
        began = time.monotonic()
        applied = []
        for step in steps:
            apply(lab, step)
            applied.append(time.monotonic())
            _await_requests(servers, probe)
        ended = time.monotonic()
        answers, whole = steady.stop(), streams.finish()
    lasted = [answer for answer in whole if answer.started < began < ended < answer.ended]
    expected = sha256(body_bytes(script)).hexdigest()
    unbroken = [answer for answer in lasted if answer.is_good and answer.sha256 == expected]
    assert len(unbroken) == STREAMS, f"streams: {len(unbroken)} of {STREAMS} are unbroken"
    variants(answers)
    return {
        _mark(step): _seconds_until_effect(step, since, until, answers)
        for step, since, until in zip(steps, applied, [*applied[1:], ended], strict=True)
    }


def test_weights_shift_within_a_second_and_break_no_stream(lab: Lab) -> None:
    for step, seconds in check_shifts(lab, apply_weights, STEPS).items():
        _note(f"until {step} is in effect", seconds, "s")


def test_weights_that_the_gateway_does_not_follow_are_noticed(lab: Lab) -> None:
    def elsewhere(lab: Lab, weights: Mapping[str, int]) -> None:
        _apply(lab, weights, "mesh")

    with pytest.raises(AssertionError, match="not in effect"):
        check_shifts(lab, elsewhere, STEPS[1:2])


def test_a_stream_that_breaks_during_a_shift_is_noticed(lab: Lab) -> None:
    victim = next(iter(lab.upstreams(VOICE, "stable").values()))

    def with_a_kill(lab: Lab, weights: Mapping[str, int]) -> None:
        apply_weights(lab, weights)
        os.kill(victim.pid, signal.SIGKILL)

    def is_restarted() -> bool:
        pods = lab.pods(VOICE, "stable")
        return len(pods) == 2 and not Path(f"/proc/{victim.pid}").exists()

    try:
        with pytest.raises(AssertionError, match="streams: "):
            check_shifts(lab, with_a_kill, STEPS[1:2])
    finally:
        eventually(is_restarted, 120, "the server is back")


def check_affinity(lab: Lab, caller: Caller) -> Counter[str]:
    """Each voice has one pod, and pods have about as many voices each."""
    pods = _pods_by_voice(lab, caller)
    moving = sorted(voice for voice, answered in pods.items() if len(answered) > 1)
    assert not moving, f"{len(moving)} of {len(pods)} voices have more than one pod"
    spread = Counter(pod for (pod,) in pods.values())
    of_a_pod = interval(len(VOICE_IDS), 1 / 3)
    assert len(spread) == 3, spread
    assert all(count in of_a_pod for count in spread.values()), spread
    return spread


def test_requests_for_one_voice_go_to_one_pod_from_the_gateway(lab: Lab) -> None:
    spread = check_affinity(lab, lab.public(AFFINE))
    _note(f"most of {len(VOICE_IDS)} voices at one of three pods", max(spread.values()))


def test_requests_for_one_voice_go_to_one_pod_in_the_mesh(lab: Lab) -> None:
    check_affinity(lab, lab.inside(AFFINE))


def test_without_a_hash_requests_for_one_voice_go_to_any_pod(lab: Lab) -> None:
    def plain(routes: list[Route]) -> list[Route]:
        for route in routes:
            for part in route["route"]:
                part["destination"]["subset"] = "stable"
        return routes

    with rerouted(lab, AFFINE, plain), pytest.raises(AssertionError, match="more than one pod"):
        check_affinity(lab, lab.public(AFFINE))


def test_voices_keep_their_pods_when_another_one_goes_and_get_them_back(lab: Lab) -> None:
    before = _pods_by_voice(lab, lab.public(AFFINE))
    gone = lab.pods(AFFINE)[0].metadata.name
    its_own = [voice for voice, pods in before.items() if pods == {gone}]

    def answered_by_it() -> bool:
        now = _pods_by_voice(lab, lab.public(AFFINE), its_own[:1])
        return now[its_own[0]] == {gone}

    server = lab.upstreams(AFFINE)[gone]
    server.set_ready(False)
    try:
        eventually(lambda: not answered_by_it(), what=f"{gone} is left alone")
        during = _pods_by_voice(lab, lab.public(AFFINE))
    finally:
        server.set_ready(True)
    eventually(answered_by_it, what=f"{gone} is used again")
    settled = before.keys() - set(its_own)
    moved = {voice for voice in settled if during[voice] != before[voice]}
    _note("share of voices that moved between pods that stayed", len(moved) / len(settled))
    assert len(moved) < len(settled) / 4
    assert _pods_by_voice(lab, lab.public(AFFINE)) == before


def check_unnamed_voices(lab: Lab) -> float:
    """Requests that name no voice leave a busy pod alone."""
    busy, server = next(iter(lab.upstreams(AFFINE).items()))
    server.always(head_ms=SLOW_MS)
    try:
        answers = lab.load(
            lab.asking(count=UNNAMED_REQUESTS), voice=AFFINE, concurrency=200, per_second=150
        )
    finally:
        server.always()
    variants(answers)
    share = sum(answer.headers[POD_HEADER] == busy for answer in answers)
    at_random = interval(UNNAMED_REQUESTS, 1 / 3)
    assert share < at_random.start, f"the busy pod got {share}, as if at random: {at_random}"
    return share / UNNAMED_REQUESTS


def test_requests_that_name_no_voice_go_to_the_less_busy_pod(lab: Lab) -> None:
    _note("share of a busy pod of three", check_unnamed_voices(lab))


def test_a_consistent_hash_alone_sends_requests_that_name_no_voice_to_any_pod(lab: Lab) -> None:
    def hashed(routes: list[Route]) -> list[Route]:
        for route in routes:
            for part in route["route"]:
                part["destination"]["subset"] = subset_by_voice("stable")
        return routes

    with rerouted(lab, AFFINE, hashed), pytest.raises(AssertionError, match="as if at random"):
        check_unnamed_voices(lab)


def check_copies(lab: Lab, caller: Caller, requests: int = 50) -> None:
    """The canary sees every synthesis, and clients hear none of it."""
    (canary,) = lab.upstreams(COPIED, "dark").values()
    (stable,) = lab.upstreams(COPIED, "stable").values()
    probe = uuid.uuid4().hex

    def counted() -> list[int]:
        return [server.counts()["by_probe"].get(probe, 0) for server in (stable, canary)]

    syntheses = lab.asking(probe=probe, body='{"input": "Hello."}', count=requests)
    answers = caller.load(syntheses, lab.asking(probe=probe, path=TTS_PATH), concurrency=4)
    assert variants(answers) == {"stable": requests + 1}, "clients hear the canary"
    eventually(lambda: counted()[0] == requests + 1, what="stable saw them")
    try:
        eventually(lambda: counted()[1] == requests + 1, 5, "copies at the canary")
    except AssertionError as error:
        raise AssertionError(f"copies: the canary saw {counted()[1]}") from error
    original, copy = stable.seen(probe)[0], canary.seen(probe)[0]
    assert copy["body_sha256"] == original["body_sha256"]
    assert copy["headers"]["host"] == original["headers"]["host"]
    premium = lab.token(scope=f"{BASIC_SCOPE} {PREMIUM_SCOPE}")
    once = asking(probe=probe, path=VOICES_PATH, token=premium, count=10)
    assert variants(caller.load(once)) == {"stable": 10}
    assert counted() == [requests + 11, requests + 1], "copies of what must be done once"


def test_a_canary_gets_copies_from_the_gateway_and_answers_nobody(lab: Lab) -> None:
    check_copies(lab, lab.public(COPIED))


def test_a_canary_gets_copies_in_the_mesh_and_answers_nobody(lab: Lab) -> None:
    check_copies(lab, lab.inside(COPIED))


def test_without_mirrors_the_canary_sees_nothing(lab: Lab) -> None:
    def alone(routes: list[Route]) -> list[Route]:
        return [{key: part for key, part in route.items() if key != "mirrors"} for route in routes]

    with rerouted(lab, COPIED, alone), pytest.raises(AssertionError, match="copies: the canary"):
        check_copies(lab, lab.public(COPIED))


def test_a_canary_that_answers_is_noticed(lab: Lab) -> None:
    def answering(routes: list[Route]) -> list[Route]:
        return shared(routes, {"dark": 100})

    with rerouted(lab, COPIED, answering), pytest.raises(AssertionError, match="hear the canary"):
        check_copies(lab, lab.public(COPIED))


@pytest.mark.parametrize("fault", [{"status": 500}, {"reset": True}, {"hang": True}])
def test_a_canary_that_fails_costs_no_request_of_those_that_it_gets_copies_of(
    lab: Lab, fault: Mapping[str, object]
) -> None:
    (canary,) = lab.upstreams(COPIED, "dark").values()
    canary.always(**fault)
    try:
        answers = lab.load(lab.asking(count=100), voice=COPIED, concurrency=4, timeout_seconds=5)
    finally:
        canary.always()
    assert variants(answers) == {"stable": 100}


def _without(name: str) -> Callable[[list[Route]], list[Route]]:
    return lambda routes: [route for route in routes if route["name"] != name]


def _by_tier_header(routes: list[Route]) -> list[Route]:
    (claim,) = VIP_CALLER
    for route in routes:
        for match in route.get("match", []):
            if claim in match.get("headers", {}):
                match["headers"] = {TIER_HEADER: {"exact": VIP_TIER}}
    return routes


def _mark(weights: Mapping[str, int]) -> str:
    return "-".join(map(str, weights.values()))


def _apply(lab: Lab, weights: Mapping[str, int], kind: str) -> None:
    routes = marked(shared(live(lab, VOICE, kind), weights), _mark(weights))
    lab.patch("VirtualService", lab.voices[VOICE], f"{VOICE}-{kind}", {"http": routes})


@contextmanager
def _killed_on_failure(running: Running) -> Iterator[Running]:
    try:
        yield running
    except BaseException:
        running.kill()
        raise


@contextmanager
def _restored(lab: Lab) -> Iterator[None]:
    """Gives both routes their present form again afterwards."""
    before = {kind: live(lab, VOICE, kind) for kind in ("public", "mesh")}
    try:
        yield
    finally:
        for kind, routes in before.items():
            name = f"{VOICE}-{kind}"
            lab.patch("VirtualService", lab.voices[VOICE], name, {"http": routes})

        def unmarked() -> bool:
            answer = lab.request(lab.asking(), voice=VOICE)
            return MARK_HEADER not in answer.headers

        eventually(unmarked, what="the routes of before are in effect")


def _open(servers: Sequence[Upstream]) -> int:
    return sum(server.counts()["open"] for server in servers)


def _await_requests(servers: Sequence[Upstream], probe: str) -> None:
    """Until the servers have seen enough further requests for a share to be told from another."""

    def counted() -> int:
        seen = 0
        for server in servers:
            with suppress(OSError):  # killed by a control
                seen += server.counts()["by_probe"].get(probe, 0)
        return seen

    before = counted()
    needed = REQUESTS_OF_A_STEP + round(STEADY_PER_SECOND * EFFECTIVE_SECONDS)
    eventually(lambda: counted() - before >= needed, what="enough requests")


def _seconds_until_effect(
    weights: Mapping[str, int], applied: float, until: float, answers: Sequence[Answer]
) -> float:
    """How long after it was applied a step led every request that was begun."""
    mark = _mark(weights)
    led = [answer for answer in answers if answer.headers.get(MARK_HEADER) == mark]
    begun = {answer.started for answer in answers if applied < answer.started < until}
    seconds = max(begun - {answer.started for answer in led}, default=applied) - applied
    assert seconds <= EFFECTIVE_SECONDS, f"{mark} was not in effect {seconds:.2f} s after"
    assert len(led) >= REQUESTS_OF_A_STEP
    counted = variants(led)
    for variant, weight in weights.items():
        allowed = interval(len(led), weight / 100)
        assert counted[variant] in allowed, f"{mark} gives {variant} {counted[variant]}"
    return seconds


def _note(name: str, value: float, unit: str = "") -> None:
    figures.note("routing", name, value, unit)


def _pods_by_voice(
    lab: Lab, caller: Caller, voices: Sequence[str] = VOICE_IDS
) -> dict[str, set[str]]:
    """Which pods answered for each voice."""
    token = lab.token()
    requests = [
        asking(token=token, headers={VOICE_ID_HEADER: voice}, tag=voice) for voice in voices
    ]
    answers = caller.load(*requests * REQUESTS_OF_A_VOICE, concurrency=CONNECTIONS)
    variants(answers)
    pods: dict[str, set[str]] = defaultdict(set)
    for answer in answers:
        pods[answer.tag].add(answer.headers[POD_HEADER])
    return dict(pods)
