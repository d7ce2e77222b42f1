from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicemesh import ConnectionLimits, Ejection, TtsVoiceServiceArgs, VoiceVariant, contract
from voicemesh.istio.specs import LoadBalancer
from voicemesh.service.resilience import (
    connection_pool,
    destination_rule,
    max_ejection_percent,
    outlier_detection,
    pool,
)
from voicemesh.service.workload import pod_labels, termination_grace_seconds

ISTIO_DEFAULT_PERCENT = 10

STABLE = VoiceVariant("stable", "1", "speech:1", weight=90, replicas=2)
CANARY = VoiceVariant("canary", "2", "speech:2", weight=10)
VIP = VoiceVariant("vip", "1", "speech:1", weight=0)
ARGS = TtsVoiceServiceArgs("tts", [STABLE, CANARY, VIP], vip_variant="vip")


def ejectable(pods: int, percent: int) -> int:
    """How many pods Envoy ejects at most: those whose share stays within the limit."""
    return max(n for n in range(pods + 1) if 100 * n / pods <= percent)


def selected(args: TtsVoiceServiceArgs) -> dict[str, set[str]]:
    """Which variants' pods each subset holds."""
    rule = destination_rule("speech", args)
    return {
        subset["name"]: {
            variant.name
            for variant in args.variants
            if subset["labels"].items() <= pod_labels("speech", args, variant).items()
        }
        for subset in rule["subsets"]
    }


def balancers(args: TtsVoiceServiceArgs) -> list[LoadBalancer | None]:
    """How requests are shared within the service, and within each subset where that differs."""
    rule = destination_rule("speech", args)
    policies = [rule["trafficPolicy"], *(subset["trafficPolicy"] for subset in rule["subsets"])]
    return [policy.get("loadBalancer") for policy in policies]


@given(st.integers(1, 1000), st.none() | st.integers(1, 100))
def test_a_single_failing_pod_can_always_be_ejected(replicas: int, share: int | None) -> None:
    percent = max_ejection_percent(Ejection(max_percent=share), replicas)
    assert ejectable(replicas, percent) >= 1


@given(st.integers(2, 1000))
def test_a_pool_is_never_emptied(replicas: int) -> None:
    assert ejectable(replicas, max_ejection_percent(Ejection(), replicas)) < replicas


@given(st.integers(1, 1000))
def test_a_pool_may_be_emptied_by_whoever_asks_for_it(replicas: int) -> None:
    percent = max_ejection_percent(Ejection(max_percent=100), replicas)
    assert ejectable(replicas, percent) == replicas


def test_istios_default_would_eject_nothing_in_a_small_pool() -> None:
    assert [n for n in range(1, 11) if ejectable(n, ISTIO_DEFAULT_PERCENT) == 0] == [*range(1, 10)]


@pytest.mark.parametrize(
    ("replicas", "percent", "expected"),
    [(3, 33, 0), (3, 34, 1), (3, 50, 1), (2, 50, 1), (1, 99, 0)],
)
def test_the_model_of_envoy_agrees_with_what_was_measured(
    replicas: int, percent: int, expected: int
) -> None:
    assert ejectable(replicas, percent) == expected


def test_three_failures_eject_for_five_minutes_unless_told_otherwise() -> None:
    assert outlier_detection(Ejection(), 4) == {
        "consecutive5xxErrors": 3,
        "interval": "30s",
        "baseEjectionTime": "300s",
        "maxEjectionPercent": 50,
        "minHealthPercent": 0,
    }


def test_each_figure_of_an_ejection_reaches_the_rule() -> None:
    found = outlier_detection(Ejection(5, 7, 2, 80), 4)
    assert found == {
        "consecutive5xxErrors": 5,
        "interval": "2s",
        "baseEjectionTime": "7s",
        "maxEjectionPercent": 80,
        "minHealthPercent": 0,
    }


def test_a_single_pod_falls_back_on_the_others_but_not_on_the_pool_for_vip_callers() -> None:
    assert selected(ARGS)["canary"] == {"stable", "canary"}


def test_the_pool_for_vip_callers_backs_up_others_when_it_is_told_to() -> None:
    willing = replace(ARGS, variants=[STABLE, CANARY, replace(VIP, backs_up=True)])
    assert selected(willing)["canary"] == {"stable", "canary", "vip"}


def test_a_single_pod_for_vip_callers_falls_back_on_the_others() -> None:
    assert selected(ARGS)["vip"] == {"stable", "canary", "vip"}


def test_several_pods_keep_to_themselves() -> None:
    assert selected(ARGS)["stable"] == {"stable"}


def test_a_single_pod_that_nothing_backs_up_keeps_to_itself() -> None:
    alone = replace(ARGS, variants=[replace(STABLE, replicas=1, weight=100), VIP])
    assert selected(alone)["stable"] == {"stable"}


@pytest.mark.parametrize("variants", [ARGS.variants, [replace(CANARY, weight=100)]])
def test_a_pool_is_what_its_subset_selects(variants: list[VoiceVariant]) -> None:
    args = replace(ARGS, variants=variants, vip_variant=None)
    for variant in variants:
        assert {v.name for v in pool(variant, args)} == selected(args)[variant.name]


def test_pods_of_a_variant_come_before_those_it_falls_back_on() -> None:
    (_, canary, _) = balancers(ARGS)[1:]
    assert canary is not None
    assert canary.get("localityLbSetting") == {
        "enabled": True,
        "failoverPriority": [f"{contract.VARIANT_LABEL}=canary"],
    }


def test_weights_change_no_label_of_a_pod() -> None:
    shifted = replace(ARGS, variants=[replace(STABLE, weight=0), replace(CANARY, weight=100), VIP])
    for before, after in zip(ARGS.variants, shifted.variants, strict=True):
        assert pod_labels("speech", ARGS, before) == pod_labels("speech", shifted, after)


def test_every_pool_warms_new_pods_up() -> None:
    every, stable, canary, vip = balancers(replace(ARGS, warmup_seconds=45))
    # A subset without a load balancer has that of the service.
    assert stable is None
    for balancer in (every, canary, vip):
        assert balancer is not None
        assert balancer.get("warmup") == {"duration": "45s"}


def test_no_warm_up_is_asked_for_by_zero() -> None:
    for balancer in balancers(replace(ARGS, warmup_seconds=0)):
        assert balancer is None or "warmup" not in balancer


def test_each_limit_bounds_what_it_is_named_for() -> None:
    limits = connection_pool(ConnectionLimits(1, 2, 3, 4))
    assert limits["tcp"]["maxConnections"] == 1
    assert limits["http"] == {
        "http1MaxPendingRequests": 2,
        "http2MaxRequests": 3,
        "maxRequestsPerConnection": 4,
    }


def test_a_connection_serves_any_number_of_requests_unless_told_otherwise() -> None:
    assert "maxRequestsPerConnection" not in connection_pool(ConnectionLimits())["http"]


@given(st.integers(1, 10_000))
def test_a_pod_lives_longer_than_its_longest_stream(max_stream_seconds: int) -> None:
    assert termination_grace_seconds(max_stream_seconds) > max_stream_seconds
