"""What is tried again, and what never is: a synthesis that may have begun costs GPU time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from infra.local.topology import HUB_ADDRESS
from tests.e2e import figures
from tests.e2e.environment import eventually
from tests.e2e.lab import Caller, Lab, Proxy, asking
from tests.e2e.routes import Route, rerouted
from tests.e2e.scripted_upstream.server import Script
from voicemesh.contract import APP_LABEL, HTTP_PORT, VARIANT_LABEL, VOICE_ID_HEADER
from voicemesh.service.workload import PORT_NAME

VOICE: Final = "familiar"
REQUESTS: Final = 20

BEFORE_THE_FIRST_BYTE: Final = {
    "an error": Script(status=500),
    "an overload": Script(status=503),
    "a reset": Script(reset=True),
}
AFTER_THE_FIRST_BYTE: Final = {
    "a reset after the first byte": Script(chunks=3, pause_ms=30, end="reset"),
    "an end after the first byte": Script(chunks=3, pause_ms=30, end="truncate"),
}
FAULTS: Final = {**BEFORE_THE_FIRST_BYTE, **AFTER_THE_FIRST_BYTE}
ENVOYS_OWN_WISHES: Final = {
    "x-envoy-retry-on": "5xx,reset,retriable-status-codes",
    "x-envoy-retriable-status-codes": "500,503",
    "x-envoy-max-retries": "5",
}


def check_seen_once(
    lab: Lab, caller: Caller, faults: Mapping[str, Script], headers: Mapping[str, str] | None = None
) -> None:
    """The voice sees each request once, however it fails."""
    servers = lab.upstreams(VOICE).values()
    probes = {fault: uuid.uuid4().hex for fault in faults}
    token = lab.token()
    requests = [
        asking(script, token=token, probe=probes[fault], tag=fault, headers=headers, count=REQUESTS)
        for fault, script in faults.items()
    ]
    for answer in caller.load(*requests, concurrency=REQUESTS):
        assert not answer.is_good, f"{answer.tag} was answered {answer.status}"
    for fault, probe in probes.items():
        seen = sum(server.counts()["by_probe"].get(probe, 0) for server in servers)
        assert seen == REQUESTS, f"{fault} was seen {seen} times, not {REQUESTS}"


@pytest.mark.parametrize("place", ["public", "inside"])
@pytest.mark.parametrize("headers", [None, {VOICE_ID_HEADER: "alice"}])
def test_a_request_whose_work_may_have_begun_is_never_tried_again(
    lab: Lab, place: str, headers: Mapping[str, str] | None
) -> None:
    check_seen_once(lab, getattr(lab, place)(VOICE), FAULTS, headers)


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_BYTE)
def test_retries_on_errors_would_have_work_done_again(lab: Lab, fault: str) -> None:
    with rerouted(lab, VOICE, _on_errors), pytest.raises(AssertionError, match="was seen"):
        check_seen_once(lab, lab.public(VOICE), {fault: FAULTS[fault]})


@pytest.mark.parametrize("place", ["public", "inside"])
def test_a_caller_cannot_ask_proxies_to_try_again(lab: Lab, place: str) -> None:
    caller = getattr(lab, place)(VOICE)
    check_seen_once(lab, caller, BEFORE_THE_FIRST_BYTE, ENVOYS_OWN_WISHES)
    trusted = {**ENVOYS_OWN_WISHES, "x-forwarded-for": HUB_ADDRESS, "x-envoy-internal": "true"}
    check_seen_once(lab, caller, BEFORE_THE_FIRST_BYTE, trusted)


@pytest.mark.parametrize("place", ["public", "inside"])
def test_a_caller_cannot_ask_proxies_to_give_up(lab: Lab, place: str) -> None:
    impatient = {"x-envoy-upstream-rq-timeout-ms": "100"}
    request = lab.asking(Script(head_ms=500), headers=impatient)
    assert getattr(lab, place)(VOICE).request(request).status == 200


def test_proxies_would_follow_the_wishes_of_a_caller_if_the_gateway_took_them(lab: Lab) -> None:
    def wishing(routes: list[Route]) -> list[Route]:
        for route in routes:
            asked = route.setdefault("headers", {}).setdefault("request", {})
            asked["set"] = {**asked.get("set", {}), **ENVOYS_OWN_WISHES}
        return routes

    with rerouted(lab, VOICE, wishing), pytest.raises(AssertionError, match="was seen"):
        check_seen_once(lab, lab.public(VOICE), BEFORE_THE_FIRST_BYTE)


@dataclass(frozen=True)
class Unreachable:
    """A member of the voice's pool that no connection reaches."""

    gateway: Proxy

    def tried(self) -> int:
        """Requests that had to be tried again, so far."""
        return sum(self.gateway.stats(rf"{VOICE}\..*upstream_rq_retry$").values())


@pytest.fixture
def unreachable(lab: Lab) -> Iterator[Unreachable]:
    (gateway,) = lab.gateways().values()
    member = f"{VOICE}.{lab.voices[VOICE]}.svc.cluster.local::{HUB_ADDRESS}:{HTTP_PORT}::"
    with _member(lab, HUB_ADDRESS):
        eventually(lambda: member in gateway.ask_admin("/clusters"), what="the gateway knows it")
        yield Unreachable(gateway)


def check_connections(lab: Lab, unreachable: Unreachable) -> None:
    """A pod that cannot be reached costs hardly a request, and no request is made twice.

    Envoy looks five times for a host that it has not tried, each time by chance, and may find the
    same one again (`host_selection_retry_max_attempts`, as istiod sets it).
    """
    servers = lab.upstreams(VOICE).values()
    probe, tried = uuid.uuid4().hex, unreachable.tried()
    token = lab.token()
    unnamed = [asking(token=token, probe=probe, count=200)]
    named = [
        asking(token=token, probe=probe, headers={VOICE_ID_HEADER: f"voice-{n}"})
        for n in range(200)
    ]
    answers = lab.load(*unnamed, *named, voice=VOICE, concurrency=8)
    failed = [answer for answer in answers if not answer.is_good]
    few = len(answers) // 100
    assert len(failed) <= few, f"connections: {len(failed)} requests failed, as {failed[0]}"
    for answer in failed:
        assert answer.status == 503, answer
        assert "retried and the latest reset reason: remote connection failure" in answer.text
    seen = sum(server.counts()["by_probe"].get(probe, 0) for server in servers)
    assert seen == len(answers) - len(failed)
    tried = unreachable.tried() - tried
    figures.note("retries", "requests of 400 whose first pod could not be reached", tried)
    assert tried > 0


def test_a_request_whose_connection_fails_is_tried_at_another_pod(
    lab: Lab, unreachable: Unreachable
) -> None:
    check_connections(lab, unreachable)


def test_without_retries_a_pod_that_cannot_be_reached_costs_requests(
    lab: Lab, unreachable: Unreachable
) -> None:
    with rerouted(lab, VOICE, _never), pytest.raises(AssertionError, match="connections: "):
        check_connections(lab, unreachable)


def check_effective_routes(lab: Lab, proxy: Proxy) -> None:
    """Proxies do with the voice's requests what we say, and nothing that Istio adds unasked."""
    actions = list(_actions(json.loads(proxy.config())))
    assert actions
    for action in actions:
        assert action["timeout"] == "0s"
        assert "hedge_policy" not in action
        policy = action["retry_policy"]
        conditions = set(policy["retry_on"].split(","))
        allowed = {"connect-failure", "refused-stream", "reset-before-request"}
        assert conditions == allowed, f"effective: retries on {conditions - allowed}"
        assert policy["num_retries"] == 2
        assert "per_try_timeout" not in policy
        assert [each["name"] for each in policy["retry_host_predicate"]] == [
            "envoy.retry_host_predicates.previous_hosts"
        ]


def test_the_gateway_adds_no_retries_and_no_time_outs_of_its_own(lab: Lab) -> None:
    (gateway,) = lab.gateways().values()
    check_effective_routes(lab, gateway)


def test_istios_own_retries_would_be_in_effect_if_routes_said_nothing(lab: Lab) -> None:
    def silent(routes: list[Route]) -> list[Route]:
        return [{key: part for key, part in route.items() if key != "retries"} for route in routes]

    (gateway,) = lab.gateways().values()
    with rerouted(lab, VOICE, silent), pytest.raises(AssertionError, match="effective: retries on"):
        check_effective_routes(lab, gateway)


def _on_errors(routes: list[Route]) -> list[Route]:
    return [{**route, "retries": {"attempts": 2, "retryOn": "5xx"}} for route in routes]


def _never(routes: list[Route]) -> list[Route]:
    return [{**route, "retries": {"attempts": 0}} for route in routes]


def _actions(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What becomes of the voice's requests, as a proxy has it."""
    for part in config["configs"]:
        for dumped in part.get("dynamic_route_configs", []):
            for virtual_host in dumped["route_config"]["virtual_hosts"]:
                if virtual_host["name"].startswith(f"{VOICE}."):
                    yield from (route["route"] for route in virtual_host["routes"])


@contextmanager
def _member(lab: Lab, address: str) -> Iterator[None]:
    """For a while, an address where nothing listens is one of the voice's pods, to all proxies."""
    namespace = lab.voices[VOICE]
    kind = ("networking.istio.io", "v1", namespace, "workloadentries")
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "unreachable"},
        "spec": {
            "address": address,
            "ports": {PORT_NAME: HTTP_PORT},
            "labels": {APP_LABEL: VOICE, VARIANT_LABEL: "stable"},
        },
    }
    lab.custom.create_namespaced_custom_object(*kind, entry)
    try:
        yield
    finally:
        lab.custom.delete_namespaced_custom_object(*kind, "unreachable")
