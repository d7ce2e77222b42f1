"""What a quota becomes: limits of the service that counts, and a filter that asks it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from voicemesh import (
    ArgumentsError,
    ComputeSize,
    GatewayHost,
    PublicGatewayArgs,
    QuotaUnit,
    RequestQuota,
    TokenIssuer,
    WhenUnavailable,
)
from voicemesh.contract import HEALTH_PATH, PAGE_PATH, SPEECH_PATH, TTS_PATH, VOICES_PATH
from voicemesh.gateway.internal_service import may_call, principal
from voicemesh.gateway.quota import NO_TENANT, limits, quota_filter
from voicemesh.gateway.quota_service import redis_options

HOSTS = [GatewayHost("a.example.com", secret_name="kept-elsewhere")]
ISSUERS = [
    TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
]


def limit_of(quota: RequestQuota, tenant: str) -> tuple[str, int]:
    """What the service would find for a tenant: an entry with its name, or the one without any."""
    (kind,) = json.loads(limits(quota))["descriptors"]
    by_name = {entry.get("value"): entry["rate_limit"] for entry in kind["descriptors"]}
    found = by_name.get(tenant, by_name[None])
    return found["unit"], found["requests_per_unit"]


@pytest.mark.parametrize(
    ("quota", "tenant", "expected"),
    [
        (RequestQuota(60), "anybody", ("minute", 60)),
        (RequestQuota(60, QuotaUnit.HOUR), "anybody", ("hour", 60)),
        (RequestQuota(60, tenants={"acme": 600}), "acme", ("minute", 600)),
        (RequestQuota(60, tenants={"acme": 600}), "anybody", ("minute", 60)),
        (RequestQuota(60, tenants={"acme": 6}), "acme", ("minute", 6)),
        (RequestQuota(60), NO_TENANT, ("minute", 6)),
        (RequestQuota(9), NO_TENANT, ("minute", 1)),
        (RequestQuota(60, requests_without_tenant=60), NO_TENANT, ("minute", 60)),
    ],
)
def test_a_tenant_has_the_limit_that_was_given(
    quota: RequestQuota, tenant: str, expected: tuple[str, int]
) -> None:
    assert limit_of(quota, tenant) == expected


def asked(quota: RequestQuota) -> Mapping[str, Any]:
    patches = quota_filter("public", "istio-ingress", quota).get("configPatches", [])
    return patches[0]["patch"]["value"]["typed_config"]


def counts(path: str, method: str = "POST") -> bool:
    """Whether a request counts: none of its conditions may be false."""
    action = asked(RequestQuota(1))["rate_limits"][0]["actions"][0]["header_value_match"]
    request = {":method": method, ":path": path}
    return all(
        _matches(condition["string_match"], request[condition["name"]])
        is not condition["invert_match"]
        for condition in action["headers"]
    )


def _matches(wanted: Mapping[str, Any], value: str) -> bool:
    if "exact" in wanted:
        return value == wanted["exact"]
    return re.fullmatch(wanted["safe_regex"]["regex"], value) is not None


@pytest.mark.parametrize(
    "path", [SPEECH_PATH, VOICES_PATH, TTS_PATH, f"{SPEECH_PATH}?x=/healthz", "/healthzz", "/x/"]
)
def test_what_is_for_tenants_counts(path: str) -> None:
    assert counts(path)


@pytest.mark.parametrize("path", [PAGE_PATH, f"{PAGE_PATH}?voice=a", HEALTH_PATH, "/healthz?x"])
def test_what_needs_no_token_does_not_count(path: str) -> None:
    assert not counts(path)


def test_preflight_does_not_count() -> None:
    assert not counts(SPEECH_PATH, "OPTIONS")


@pytest.mark.parametrize(
    ("when", "denies"), [(WhenUnavailable.ALLOW, False), (WhenUnavailable.DENY, True)]
)
def test_what_becomes_of_requests_that_nobody_counts_is_chosen(
    when: WhenUnavailable, denies: bool
) -> None:
    assert asked(RequestQuota(1, when_unavailable=when))["failure_mode_deny"] is denies


def test_the_store_gives_up_counters_before_its_memory_is_used_up() -> None:
    options = redis_options(ComputeSize(0.1, 0.125))
    assert options[options.index("--maxmemory") + 1] == "64mb"


def test_one_account_may_call_at_one_port() -> None:
    assert may_call("redis", principal("istio-ingress", "ratelimit"), 6379) == {
        "selector": {"matchLabels": {"app": "redis"}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [
                    {"source": {"principals": ["cluster.local/ns/istio-ingress/sa/ratelimit"]}}
                ],
                "to": [{"operation": {"ports": ["6379"]}}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (RequestQuota(0), "quota.requests is 0; allowed: a whole number ≥ 1"),
        (RequestQuota(2**32), "quota.requests is 4294967296; allowed: at most 4294967295"),
        (
            RequestQuota(1, tenants={"acme": 0}),
            "quota.tenants[acme] is 0; allowed: a whole number ≥ 1",
        ),
        (RequestQuota(1, tenants={"(none)": 5}), "quota.tenants is '(none)'; allowed: "),
        (
            RequestQuota(1, requests_without_tenant=0),
            "quota.requests_without_tenant is 0; allowed: a whole number ≥ 1",
        ),
        (
            RequestQuota(1, timeout_seconds=0),
            "quota.timeout_seconds is 0; allowed: a number ≥ 0.001",
        ),
        (RequestQuota(1, replicas=0), "quota.replicas is 0; allowed: a whole number ≥ 1"),
        (RequestQuota(1, redis=ComputeSize(0, 1)), "quota.redis.cpu_cores is 0; allowed: "),
        (
            RequestQuota(1, unit="month"),  # pyright: ignore[reportArgumentType]
            "quota.unit is 'month'; allowed: QuotaUnit.SECOND, QuotaUnit.MINUTE",
        ),
        (
            RequestQuota(1, when_unavailable="maybe"),  # pyright: ignore[reportArgumentType]
            "quota.when_unavailable is 'maybe'; allowed: WhenUnavailable.ALLOW, ",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(quota: RequestQuota, message: str) -> None:
    with pytest.raises(ArgumentsError, match=re.escape(f"PublicGateway: {message}")):
        PublicGatewayArgs(hosts=HOSTS, issuers=ISSUERS, quota=quota)
