"""How often each tenant may ask: one budget for all gateways, by the verified claim alone."""

from __future__ import annotations

import json
import math
import statistics
import time
import uuid
from collections import Counter
from typing import Final

import pytest

from tests.e2e import figures
from tests.e2e.environment import eventually
from tests.e2e.lab import TENANT, Lab, Proxy, Running, asking, caller_name
from tests.e2e.load import Answer
from tests.e2e.metered import (
    BUDGET,
    CONNECTIONS,
    GENEROUS,
    LONGEST_CHECK_SECONDS,
    NAMESPACE,
    UNIT_SECONDS,
    VOICE,
    WITHOUT_TENANT,
    Config,
    Metered,
    said,
    somebody,
)
from tests.e2e.scripted_upstream.server import Script
from voicemesh.contract import HEALTH_PATH, PAGE_PATH, SPEECH_PATH, TENANT_HEADER
from voicemesh.gateway.quota import RATELIMIT
from voicemesh.gateway.quota_service import REDIS, REDIS_PORT

UNMETERED: Final = TENANT
"""A tenant whose budget no test uses up."""

STRANGER: Final = "stranger"
STREAMS: Final = 8
STREAM: Final = Script(chunks=100, size=64, pause_ms=100)


@pytest.fixture
def metered(lab: Lab) -> Metered:
    return Metered(lab)


def statuses(answers: list[Answer]) -> Counter[int | None]:
    return Counter(answer.status for answer in answers)


def check_budget(metered: Metered, tenant: str | None = None, budget: int = BUDGET) -> None:
    """Of many requests at once, exactly the budget is served, whichever gateways they go to."""
    probe = uuid.uuid4().hex
    asked = metered.questions()
    answers = metered.ask(tenant or somebody(), 4 * budget, probe=probe)
    asked = [now - before for before, now in zip(asked, metered.questions(), strict=True)]
    seen = statuses(answers)
    uncounted = [answer for answer in answers if "x-ratelimit-limit" not in answer.headers]
    assert len(uncounted) in (0, len(answers)), f"not counted: {uncounted}"
    assert seen == {200: budget, 429: 3 * budget}, f"a budget of {budget} gives {seen}"
    assert metered.upstream().counts()["by_probe"][probe] == budget
    assert all(asked), f"a gateway has asked nothing: {asked}"
    figures.note("quota", f"served of a budget of {budget}, gateways: {len(asked)}", seen[200])


def test_one_gateway_serves_exactly_the_budget(metered: Metered) -> None:
    check_budget(metered)
    with (
        metered.asking_otherwise(lambda config: config.pop("rate_limits")),
        pytest.raises(AssertionError, match=rf"gives Counter\({{200: {4 * BUDGET}}}"),
    ):
        check_budget(metered)


def test_two_gateways_share_one_budget(metered: Metered) -> None:
    with metered.two_gateways():
        check_budget(metered)
        with (
            metered.asking_otherwise(_each_gateway_by_itself),
            pytest.raises(AssertionError, match=rf"a budget of {BUDGET} gives Counter"),
        ):
            check_budget(metered)


def _each_gateway_by_itself(config: Config) -> None:
    extension = {
        "@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
        "descriptor_key": "tenant",
        "text": "xds.node.id",
    }
    name = "envoy.rate_limit_descriptors.expr"
    config["rate_limits"][0]["actions"][1] = {
        "extension": {"name": name, "typed_config": extension}
    }


def test_a_tenant_with_a_budget_of_its_own_has_exactly_that(metered: Metered) -> None:
    metered.forget()
    check_budget(metered, *GENEROUS)
    with pytest.raises(AssertionError, match=f"a budget of {GENEROUS[1]} gives"):
        check_budget(metered, somebody(), GENEROUS[1])


def check_refusal_tells_when_to_come_again(metered: Metered) -> None:
    answers = metered.ask(somebody(), BUDGET + 1)
    (refused,) = [answer for answer in answers if answer.status == 429]
    headers = refused.headers
    assert 1 <= int(headers.get("retry-after", 0)) <= UNIT_SECONDS, "no time to come again"
    assert headers["retry-after"] == headers["x-ratelimit-reset"]
    assert headers["x-ratelimit-limit"] == f"{BUDGET}, {BUDGET};w={UNIT_SECONDS}"
    assert headers["x-ratelimit-remaining"] == "0"
    assert headers["content-type"] == "application/json"
    error = json.loads(refused.text)["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert error.keys() == {"message", "type", "param", "code"}
    remaining = sorted(
        int(answer.headers["x-ratelimit-remaining"]) for answer in answers if answer.is_good
    )
    assert remaining == list(range(BUDGET)), "answers do not count the budget down"
    assert not any("retry-after" in answer.headers for answer in answers if answer.is_good)


def test_a_refusal_tells_when_to_come_again(metered: Metered) -> None:
    check_refusal_tells_when_to_come_again(metered)
    with (
        metered.asking_otherwise(lambda config: config.pop("enable_x_ratelimit_headers")),
        pytest.raises(AssertionError, match="no time to come again"),
    ):
        check_refusal_tells_when_to_come_again(metered)


def check_others_are_served(metered: Metered) -> None:
    """While one tenant's budget is used up, another's is whole."""
    metered.begin(2 * LONGEST_CHECK_SECONDS)
    assert statuses(metered.ask(somebody(), BUDGET + 5))[429] == 5
    others = statuses(metered.ask(somebody(), BUDGET))
    assert others == {200: BUDGET}, f"another tenant gets {others}"


def test_a_tenant_that_asks_too_often_costs_no_other(metered: Metered) -> None:
    check_others_are_served(metered)
    with (
        metered.asking_otherwise(_all_together),
        pytest.raises(AssertionError, match="another tenant gets"),
    ):
        check_others_are_served(metered)


def _all_together(config: Config) -> None:
    everybody = {"descriptor_key": "tenant", "descriptor_value": somebody()}
    config["rate_limits"][0]["actions"][1] = {"generic_key": everybody}


def check_forged_tenants_count_for_nothing(metered: Metered) -> None:
    """What a client says of its tenant gives it no other budget, and takes none from others."""
    victim = somebody()
    answers = metered.ask(somebody(), 2 * BUDGET, headers={TENANT_HEADER: victim})
    (untouched,) = metered.ask(victim, 1)
    left = int(untouched.headers.get("x-ratelimit-remaining", 0))
    assert left == BUDGET - 1, f"a forged header leaves its victim {left} requests"
    assert statuses(answers) == {200: BUDGET, 429: BUDGET}


def test_a_forged_tenant_counts_for_nothing(metered: Metered) -> None:
    check_forged_tenants_count_for_nothing(metered)
    with (
        metered.asking_otherwise(_believe_the_client),
        pytest.raises(AssertionError, match="a forged header leaves its victim"),
    ):
        check_forged_tenants_count_for_nothing(metered)


def _believe_the_client(config: Config) -> None:
    header = {"header_name": TENANT_HEADER, "descriptor_key": "tenant"}
    config["rate_limits"][0]["actions"][1] = {"request_headers": header}


def check_tokens_without_tenant(metered: Metered) -> None:
    """Tokens without the claim have one small budget together."""
    metered.forget()
    answers = metered.ask(None, 3 * WITHOUT_TENANT)
    seen = statuses(answers)
    assert seen == {200: WITHOUT_TENANT, 429: 2 * WITHOUT_TENANT}, f"without the claim: {seen}"


def test_a_token_without_the_claim_is_limited(metered: Metered) -> None:
    check_tokens_without_tenant(metered)
    with (
        metered.asking_otherwise(_only_known_tenants),
        pytest.raises(AssertionError, match="without the claim: Counter"),
    ):
        check_tokens_without_tenant(metered)


def _only_known_tenants(config: Config) -> None:
    config["rate_limits"][0]["actions"][1]["metadata"].pop("default_value")


def check_what_costs_nothing(metered: Metered) -> None:
    """The page, health and CORS preflight do not count, be there a token or none."""
    tenant = somebody()
    token = metered.lab.token(tenant=tenant)
    asked = {"origin": "https://example.com", "access-control-request-method": "POST"}
    for request in (
        asking(path=PAGE_PATH, method="GET", token=token),
        asking(path=f"{HEALTH_PATH}?deep=1", method="GET", token=token),
        asking(path=SPEECH_PATH, method="OPTIONS", headers=asked, token=token),
        asking(path=HEALTH_PATH, method="GET"),
    ):
        refused = statuses(metered.send(request, 10))[429]
        assert refused == 0, f"what costs nothing is refused {refused} times"
    (first,) = metered.ask(tenant, 1)
    left = int(first.headers.get("x-ratelimit-remaining", 0))
    assert left == BUDGET - 1, f"what costs nothing leaves {left} requests"


def test_the_page_health_and_preflight_cost_nothing(metered: Metered) -> None:
    check_what_costs_nothing(metered)
    with (
        metered.asking_otherwise(_count_everything),
        pytest.raises(AssertionError, match="what costs nothing"),
    ):
        check_what_costs_nothing(metered)


def _count_everything(config: Config) -> None:
    request = {"descriptor_key": "kind", "descriptor_value": "request"}
    config["rate_limits"][0]["actions"][0] = {"generic_key": request}


def test_each_unit_of_time_has_a_budget_of_its_own(metered: Metered) -> None:
    """Across one boundary that is at most twice the budget, and so on: tried with seconds."""
    tenant = somebody()
    request = metered.lab.asking(token=metered.lab.token(tenant=tenant))
    with metered.other_limits(
        lambda text: text.replace("minute", "second"), f"{BUDGET}, {BUDGET};w=1"
    ):
        (caller,) = metered.callers()
        begun = time.time()
        answers = caller.load(request, seconds=3.5, concurrency=CONNECTIONS, per_second=5 * BUDGET)
        ended = time.time()
    units = math.floor(ended) - math.floor(begun) + 1
    served = statuses(answers)[200]
    figures.note("quota", f"served of a budget of {BUDGET} in {units} units", served)
    assert BUDGET < served <= units * BUDGET
    assert statuses(answers).keys() == {200, 429}


def check_served_uncounted(metered: Metered) -> None:
    """While nobody can count, requests are served, and not later than otherwise."""
    answers = metered.ask(somebody(), 2 * BUDGET)
    seen = statuses(answers)
    assert seen == {200: 2 * BUDGET}, f"while nobody counts: {seen}"
    waited = statistics.median(answer.first_byte_seconds for answer in answers)
    figures.note("quota", "first byte while nobody counts, median", waited * 1000, "ms")


def check_refused_uncounted(metered: Metered) -> None:
    """While nobody can count, no request is served."""
    seen = statuses(metered.ask(somebody(), 2 * BUDGET))
    assert seen == {503: 2 * BUDGET}, f"while nobody counts: {seen}"


def test_without_who_counts_requests_are_served_or_refused_as_configured(
    metered: Metered, pytestconfig: pytest.Config
) -> None:
    for app in (REDIS, RATELIMIT) if pytestconfig.getoption("--soak") else (REDIS,):
        with metered.down(app):
            check_served_uncounted(metered)
            with pytest.raises(AssertionError, match="while nobody counts"):
                check_refused_uncounted(metered)
            with metered.asking_otherwise(lambda config: config.update(failure_mode_deny=True)):
                check_refused_uncounted(metered)
                with pytest.raises(AssertionError, match="while nobody counts"):
                    check_served_uncounted(metered)
        check_budget(metered)


def test_limits_change_without_a_restart_or_a_broken_stream(metered: Metered) -> None:
    before = [pod.metadata.uid for pod in metered.pods(RATELIMIT)]
    more = BUDGET + 20
    streams = _streams(metered)
    with metered.other_limits(lambda text: _raised(text, more), f"{more}, {more};w={UNIT_SECONDS}"):
        check_budget(metered, budget=more)
    check_budget(metered)
    assert [pod.metadata.uid for pod in metered.pods(RATELIMIT)] == before
    (pod,) = metered.pods(RATELIMIT)
    assert not any(status.restart_count for status in pod.status.container_statuses)
    _all_whole(streams.finish())


def _raised(text: str, requests: int) -> str:
    return text.replace(f'"requests_per_unit": {BUDGET}', f'"requests_per_unit": {requests}')


def test_the_filter_comes_and_goes_without_a_broken_stream(metered: Metered) -> None:
    streams = _streams(metered)
    with metered.not_asking():
        (answer,) = metered.ask(UNMETERED, 1)
        assert "x-ratelimit-limit" not in answer.headers
    (answer,) = metered.ask(UNMETERED, 1)
    assert "x-ratelimit-limit" in answer.headers
    _all_whole(streams.finish())


def _streams(metered: Metered) -> Running:
    (caller,) = metered.callers()
    before = metered.upstream().counts()["open"]
    request = metered.lab.asking(STREAM, token=metered.lab.token(tenant=UNMETERED))
    running = caller.start(*[request] * STREAMS, concurrency=STREAMS)
    eventually(lambda: metered.upstream().counts()["open"] >= before + STREAMS, 20, "streams flow")
    return running


def _all_whole(answers: list[Answer]) -> None:
    assert Counter(answer.outcome for answer in answers) == {"complete": STREAMS}
    assert {answer.size for answer in answers} == {STREAM.size * (STREAM.chunks or 0)}


def answer_to_a_stranger(metered: Metered) -> str:
    """What Redis answers a pod beside it, which has a sidecar and another account."""
    metered.lab.inside(VOICE, tenant=NAMESPACE, account=STRANGER)
    redis = metered.lab.core.read_namespaced_service(REDIS, NAMESPACE).spec.cluster_ip
    return said(Proxy(caller_name(STRANGER, NAMESPACE)).network, redis, REDIS_PORT, "PING")


def check_the_counters_answer_nobody_else(metered: Metered) -> None:
    answer = answer_to_a_stranger(metered)
    assert answer == "", f"Redis answers a stranger: {answer}"


def test_the_counters_answer_nobody_else(metered: Metered) -> None:
    check_the_counters_answer_nobody_else(metered)
    with (
        metered.reachable(REDIS),
        metered.lab.without("AuthorizationPolicy", NAMESPACE, REDIS),
    ):
        eventually(lambda: answer_to_a_stranger(metered), 30, "Redis answers a stranger")
        with pytest.raises(AssertionError, match="answers a stranger"):
            check_the_counters_answer_nobody_else(metered)
