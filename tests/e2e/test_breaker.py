"""What becomes of a voice that is asked for more than it takes: it sheds, then its proxies do."""

from __future__ import annotations

import json
import statistics
import uuid
from collections import Counter

import pytest

from tests.e2e.environment import eventually
from tests.e2e.figures import note
from tests.e2e.lab import GATEWAY, GATEWAY_NAMESPACE, TENANT, Lab, Proxy
from tests.e2e.proxies import cluster_of, cluster_stats
from tests.e2e.scripted_upstream.server import Script
from voicemesh import ConnectionLimits, contract

NARROW = "narrow"
POOLS = "pools"
LIMITS = ConnectionLimits(max_connections=8, max_pending_requests=4, max_requests=16)
"""Those of the lab's voice of this name, which has one pod."""

WORKERS = 2
"""Threads of a gateway's proxy: Envoy lets each have one connection, whatever the limit."""

CALLERS = 60
HOLD_SECONDS = 3.0
FAST_SECONDS = 0.25
BOUNDED_MIB = 30
SHED = 1000


SHEDDING_IS_FAILURE = {
    "workloadSelector": {"labels": {"app": GATEWAY}},
    "configPatches": [
        {
            "applyTo": "CLUSTER",
            "match": {"cluster": {"service": f"{NARROW}.{TENANT}.svc.cluster.local"}},
            "patch": {
                "operation": "MERGE",
                "value": {
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http_protocol_options": {}},
                            "outlier_detection": {
                                "error_matcher": {
                                    "http_response_headers_match": {
                                        "headers": [
                                            {"name": ":status", "string_match": {"exact": "429"}}
                                        ]
                                    }
                                }
                            },
                        }
                    }
                },
            },
        }
    ],
}
"""By it a gateway takes 429 for a failure of the pod."""


def check_overload_is_refused(lab: Lab) -> None:
    """More callers at once than a voice's connections and places to wait."""
    (upstream,) = lab.upstreams(NARROW).values()
    (gateway,) = lab.gateways().values()
    upstream.forget()
    memory_before = gateway.memory_mib
    ejections_before = ejections(gateway)
    path = f"{contract.SPEECH_PATH}?run={uuid.uuid4()}"
    answers = lab.load(
        lab.asking(Script(head_ms=HOLD_SECONDS * 1e3), path=path, count=CALLERS),
        voice=NARROW,
        concurrency=CALLERS,
        per_second=100,
    )
    good = [answer for answer in answers if answer.is_good]
    refused = [answer for answer in answers if answer.status == 503]
    room = LIMITS.max_connections + LIMITS.max_pending_requests
    assert len(refused) > 0, "nobody was refused"
    assert len(good) + len(refused) == CALLERS, Counter(answer.status for answer in answers)
    assert room <= len(good) < room + WORKERS, f"{len(good)} succeeded, where {room} have room"
    assert all("x-envoy-overloaded" in answer.headers for answer in refused)
    took = [answer.first_byte_seconds for answer in refused]
    assert statistics.median(took) < FAST_SECONDS, f"a refusal took {statistics.median(took):.2f} s"
    assert max(took) < HOLD_SECONDS, f"a refusal waited for {max(took):.2f} s"
    most = upstream.counts()["most_open"]
    assert most < LIMITS.max_connections + WORKERS, f"{most} requests at once reached the server"
    grown = gateway.memory_mib - memory_before
    assert grown < BOUNDED_MIB, f"the gateway grew by {grown:.0f} MiB"
    assert ejections(gateway) == ejections_before, "an overloaded pod was ejected"
    flags = eventually(lambda: flags_in_log(lab, path, CALLERS), 20, "the log has all requests")
    assert flags == {"-": len(good), "UO": len(refused)}
    note("breaker", "median time of a refusal", statistics.median(took) * 1e3, "ms")
    note("breaker", "slowest refusal", max(took) * 1e3, "ms")
    note("breaker", "memory that the gateway grew by", grown, "MiB")


def flags_in_log(lab: Lab, path: str, wanted: int) -> Counter[str] | None:
    """The response flags that the gateway logged for a path, once it has logged all."""
    lines = [line for line in lab.access_log(60) if path in line]
    return Counter(line.split(" ")[5] for line in lines) if len(lines) == wanted else None


def check_shedding_ejects_nobody(lab: Lab) -> None:
    """A server that is too busy says so politely, a thousand times."""
    (upstream,) = lab.upstreams(NARROW).values()
    upstream.forget()
    busy = Script(status=429, headers={"retry-after": "1"})
    answers = lab.load(lab.asking(busy, count=SHED), voice=NARROW, concurrency=4)
    seen = Counter(answer.status for answer in answers)
    assert seen == {429: SHED}, f"callers saw {dict(seen)}"
    assert upstream.counts()["total"] == SHED
    assert all(answer.headers.get("retry-after") == "1" for answer in answers)


def ejections(gateway: Proxy) -> int:
    return cluster_stats(gateway, NARROW, "stable")["outlier_detection.ejections_enforced_total"]


def test_a_voice_takes_what_its_limits_say_and_the_rest_is_refused_at_once(lab: Lab) -> None:
    check_overload_is_refused(lab)
    assert lab.request(lab.asking(), voice=NARROW).is_good


def test_overload_is_noticed_where_nothing_limits_it(lab: Lab) -> None:
    unlimited = {"trafficPolicy": {"connectionPool": None}}
    (gateway,) = lab.gateways().values()
    with lab.patched("DestinationRule", lab.voices[NARROW], NARROW, unlimited):
        eventually(lambda: max_connections(gateway) > CALLERS, 20, "the limits are gone")
        with pytest.raises(AssertionError, match="nobody was refused"):
            check_overload_is_refused(lab)
    eventually(lambda: max_connections(gateway) == LIMITS.max_connections, 20, "limits are back")


def max_connections(gateway: Proxy) -> int:
    (thresholds,) = cluster_of(gateway, NARROW, "stable")["circuit_breakers"]["thresholds"]
    return int(thresholds["max_connections"])


def test_a_thousand_shed_requests_eject_nobody(lab: Lab) -> None:
    check_shedding_ejects_nobody(lab)


def test_an_ejection_for_shedding_is_noticed(lab: Lab) -> None:
    (gateway,) = lab.gateways().values()

    def counts_shedding() -> bool:
        return "error_matcher" in cluster_text(gateway)

    with lab.object("EnvoyFilter", GATEWAY_NAMESPACE, "shedding-is-failure", SHEDDING_IS_FAILURE):
        eventually(counts_shedding, 20, "429 counts as a failure")
        with pytest.raises(AssertionError, match="callers saw"):
            check_shedding_ejects_nobody(lab)
    eventually(lambda: not counts_shedding(), 20, "429 is no failure any more")
    assert lab.request(lab.asking(), voice=NARROW).is_good


def cluster_text(gateway: Proxy) -> str:
    return json.dumps(cluster_of(gateway, NARROW, "stable"))


def test_a_connection_for_each_request_takes_a_handshake_for_each(lab: Lab) -> None:
    subsets = lab.read("DestinationRule", lab.voices[POOLS], POOLS)["spec"]["subsets"]
    single = {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}
    changed = [
        {**it, "trafficPolicy": {**it["trafficPolicy"], **single}} if it["name"] == "canary" else it
        for it in subsets
    ]
    requests = [
        lab.asking(tag=subset, headers={contract.VARIANT_HEADER: subset})
        for subset in ("stable", "canary")
    ]
    with lab.patched("DestinationRule", lab.voices[POOLS], POOLS, {"subsets": changed}):
        (gateway,) = lab.gateways().values()
        eventually(lambda: closes_connections(gateway), 20, "the gateway closes connections")
        lab.load(*requests, voice=POOLS, seconds=1)
        before = {subset: handshakes(gateway, subset) for subset in ("stable", "canary")}
        answers = lab.load(*requests, voice=POOLS, per_second=100, seconds=4)
        made = {subset: handshakes(gateway, subset) - before[subset] for subset in before}
    assert all(answer.is_good for answer in answers)
    asked = Counter(answer.tag for answer in answers)
    assert made["canary"] >= asked["canary"] - 1
    assert made["stable"] < asked["stable"] / 4
    for subset, name in (("stable", "a kept connection"), ("canary", "a connection of its own")):
        took = [it.first_byte_seconds * 1e3 for it in answers if it.tag == subset]
        note("breaker", f"first byte over {name}, p50", statistics.median(took), "ms")


def closes_connections(gateway: Proxy) -> bool:
    return '"max_requests_per_connection": 1' in json.dumps(cluster_of(gateway, POOLS, "canary"))


def handshakes(gateway: Proxy, subset: str) -> int:
    return cluster_stats(gateway, POOLS, subset)["ssl.handshake"]
