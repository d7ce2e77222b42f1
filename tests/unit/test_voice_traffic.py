from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluators.routes import Asked, answering, copying
from voicemesh import Mirroring, TokenIssuer, TtsVoiceServiceArgs, VoiceVariant
from voicemesh.istio.specs import VirtualServiceSpec
from voicemesh.service.resilience import destination_rule, pool
from voicemesh.service.traffic import mesh_routes, public_routes

STABLE = VoiceVariant("stable", "1", "speech:1", weight=90, replicas=2)
CANARY = VoiceVariant("canary", "2", "speech:2", weight=10)
VIP = VoiceVariant("vip", "1", "speech:1", weight=0, replicas=2)
DARK = VoiceVariant("dark", "3", "speech:3", weight=0)
ARGS = TtsVoiceServiceArgs(
    "tts",
    [STABLE, CANARY, VIP, DARK],
    hosts=["tts.example.com"],
    gateway_ref="istio-ingress/public",
    gateway_principal="cluster.local/ns/istio-ingress/sa/public",
    issuers=[
        TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
    ],
    vip_variant="vip",
    experiments=["canary"],
)
BY_WEIGHT = {"stable": 90, "canary": 10}
SPEAK = Asked("/v1/audio/speech", "POST")
IS_VIP = {"tier": "vip"}


def public(args: TtsVoiceServiceArgs = ARGS) -> VirtualServiceSpec:
    return public_routes("speech", args)


def mesh(args: TtsVoiceServiceArgs = ARGS) -> VirtualServiceSpec:
    return mesh_routes("speech", args)


@pytest.mark.parametrize(
    ("headers", "claims", "expected"),
    [
        ({}, {}, BY_WEIGHT),
        ({}, IS_VIP, {"vip": 100}),
        ({}, {"tier": "gold"}, BY_WEIGHT),
        ({"x-user-tier": "vip"}, {}, BY_WEIGHT),
        ({"x-user-tier": "vip"}, {"tier": "gold"}, BY_WEIGHT),
        ({"x-voice-variant": "canary"}, {}, {"canary": 100}),
        ({"x-voice-variant": "canary"}, IS_VIP, {"canary": 100}),
        ({"x-voice-variant": "vip"}, {}, BY_WEIGHT),
        ({"x-voice-variant": "unknown"}, IS_VIP, {"vip": 100}),
        ({"x-voice-id": "alice"}, {}, BY_WEIGHT),
    ],
)
def test_the_public_is_led_by_experiment_then_tier_then_weight(
    headers: Mapping[str, str], claims: Mapping[str, str], expected: Mapping[str, int]
) -> None:
    asked = replace(SPEAK, headers=headers, claims=claims)
    assert answering(public(), asked) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, BY_WEIGHT),
        ({"x-user-tier": "vip"}, BY_WEIGHT),
        ({"x-voice-variant": "canary"}, {"canary": 100}),
        ({"x-voice-variant": "vip"}, BY_WEIGHT),
    ],
)
def test_the_mesh_is_led_by_experiment_then_weight(
    headers: Mapping[str, str], expected: Mapping[str, int]
) -> None:
    assert answering(mesh(), replace(SPEAK, headers=headers)) == expected


def test_no_variant_may_be_asked_for_unless_it_is_listed() -> None:
    args = replace(ARGS, experiments=())
    asked = replace(SPEAK, headers={"x-voice-variant": "canary"})
    assert answering(public(args), asked) == answering(mesh(args), asked) == BY_WEIGHT


@pytest.mark.parametrize("headers", [{}, {"x-voice-variant": "canary"}, {"x-voice-id": "alice"}])
@pytest.mark.parametrize("claims", [{}, IS_VIP])
@pytest.mark.parametrize("affinity", [False, True])
@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/", True),
        ("/v1/audio/speech", True),
        ("/v1/audio/speech/stream", True),
        ("/v1/audio/voices/alice", True),
        ("/tts", True),
        ("/batch", True),
        ("/batch/7", True),
        ("/admin", True),
        ("/admin/models", True),
        ("/healthz", True),
        ("/metrics", False),
        ("/readyz", False),
        ("/healthz/", False),
        ("/ttsx", False),
        ("/batches", False),
        ("/administrator", False),
        ("/v1", False),
        ("/v2/audio/speech", False),
        ("/anything", False),
    ],
)
def test_the_public_reaches_these_paths_and_no_others_whoever_asks(
    path: str, served: bool, headers: Mapping[str, str], claims: Mapping[str, str], affinity: bool
) -> None:
    args = replace(ARGS, voice_affinity=affinity, mirroring=Mirroring("dark", 5))
    asked = Asked(path, "GET", headers, claims)
    assert (answering(public(args), asked) is not None) is served


@pytest.mark.parametrize(
    ("claims", "headers", "variants"),
    [
        ({}, {}, BY_WEIGHT),
        (IS_VIP, {}, {"vip": 100}),
        ({}, {"x-voice-variant": "canary"}, {"canary": 100}),
    ],
)
def test_with_affinity_requests_that_name_a_voice_take_the_twins_of_the_same_subsets(
    claims: Mapping[str, str], headers: Mapping[str, str], variants: Mapping[str, int]
) -> None:
    spec = public(replace(ARGS, voice_affinity=True))
    named = replace(SPEAK, claims=claims, headers={**headers, "x-voice-id": "alice"})
    unnamed = replace(SPEAK, claims=claims, headers={**headers, "x-voice-id": ""})
    assert answering(spec, named) == {f"{name}-by-voice": n for name, n in variants.items()}
    assert answering(spec, unnamed) == variants


def test_a_twin_differs_from_its_subset_in_how_it_chooses_a_pod_only() -> None:
    rule = destination_rule("speech", replace(ARGS, voice_affinity=True))
    subsets: dict[str, Any] = {subset["name"]: subset for subset in rule["subsets"]}
    assert len(subsets) == 2 * len(ARGS.variants)
    for variant in ARGS.variants:
        plain, twin = subsets[variant.name], subsets[f"{variant.name}-by-voice"]
        assert twin["labels"] == plain["labels"]
        without = {k: v for k, v in plain["trafficPolicy"].items() if k != "loadBalancer"}
        chooses = {"loadBalancer": twin["trafficPolicy"]["loadBalancer"]}
        assert twin["trafficPolicy"] == {**without, **chooses}
        assert chooses["loadBalancer"]["consistentHash"]["httpHeaderName"] == "x-voice-id"


def test_affinity_is_off_by_default() -> None:
    assert [subset["name"] for subset in destination_rule("speech", ARGS)["subsets"]] == [
        variant.name for variant in ARGS.variants
    ]


COPIED = replace(ARGS, mirroring=Mirroring("dark", 5))


@pytest.mark.parametrize(
    ("asked", "copied"),
    [
        (SPEAK, True),
        (Asked("/tts", "POST"), True),
        (Asked("/v1/audio/voices", "POST"), False),
        (Asked("/v1/audio/voices/alice", "DELETE"), False),
        (Asked("/v1/audio/speech/stream", "GET"), False),
        (Asked("/batch", "POST"), False),
        (replace(SPEAK, headers={"x-voice-variant": "canary"}), False),
    ],
)
def test_only_requests_that_may_be_made_twice_are_copied(asked: Asked, copied: bool) -> None:
    for spec in (public(COPIED), mesh(COPIED)):
        assert copying(spec, asked) == ({"dark": 5} if copied else {})
        assert answering(spec, asked) == answering(public(), asked)


def test_no_copy_of_a_request_reaches_a_variant_that_answers() -> None:
    assert pool(DARK, COPIED) == [DARK]
    assert all(DARK not in pool(variant, COPIED) for variant in (STABLE, CANARY, VIP))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_variants_without_weight_get_no_share(weights: list[int]) -> None:
    total = sum(weights)
    weights = [*weights[:-1], weights[-1] + 100 - total] if total else [100]
    if min(weights) < 0:
        return
    variants = [
        VoiceVariant(f"v{index}", "1", "speech:1", weight=weight)
        for index, weight in enumerate(weights)
    ]
    shares = answering(mesh(TtsVoiceServiceArgs("tts", variants)), SPEAK)
    assert shares == {v.name: v.weight for v in variants if v.weight}


def test_nothing_is_retried_that_the_server_may_have_begun() -> None:
    conditions = {
        condition
        for spec in (public(COPIED), mesh(COPIED))
        for route in spec["http"]
        for condition in route.get("retries", {"retryOn": "istio's own"})["retryOn"].split(",")
    }
    assert conditions == {"connect-failure", "refused-stream", "reset-before-request"}


def test_public_and_mesh_routes_share_no_gateway() -> None:
    assert public()["gateways"] == ["istio-ingress/public"]
    assert mesh()["gateways"] == ["mesh"]
