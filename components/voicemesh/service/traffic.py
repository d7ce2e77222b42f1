"""How requests reach a voice: its routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.identity import forwarded_headers
from voicemesh.istio.specs import (
    CorsPolicy,
    HttpMatch,
    HttpRoute,
    Mirror,
    Retries,
    StringMatch,
    VirtualServiceSpec,
    WeightedDestination,
)
from voicemesh.service.arguments import FULL_WEIGHT, TtsVoiceServiceArgs

PREFLIGHT_SECONDS: Final = 3600
"""For this long a browser need not ask again whether a page may call."""

CLUSTER_DOMAIN: Final = "cluster.local"
MESH_GATEWAY: Final = "mesh"

PUBLIC_PATHS: Final[Sequence[HttpMatch]] = (
    {"uri": {"exact": contract.PAGE_PATH}},
    {"uri": {"exact": contract.SPEECH_PATH}},
    {"uri": {"exact": contract.SPEECH_STREAM_PATH}},
    {"uri": {"exact": contract.VOICES_PATH}},
    {"uri": {"prefix": f"{contract.VOICES_PATH}/"}},
    {"uri": {"exact": contract.TTS_PATH}},
    {"uri": {"exact": contract.BATCH_PATH}},
    {"uri": {"prefix": f"{contract.BATCH_PATH}/"}},
    {"uri": {"exact": contract.ADMIN_PATH}},
    {"uri": {"prefix": f"{contract.ADMIN_PATH}/"}},
    {"uri": {"exact": contract.HEALTH_PATH}},
)
"""What the public gateway passes on. Any other path, `/metrics` and `/readyz` among them, is
answered 404."""

ALL_PATHS: Final[Sequence[HttpMatch]] = ({},)

SYNTHESES: Final[Sequence[HttpMatch]] = (
    {"uri": {"exact": contract.SPEECH_PATH}, "method": {"exact": "POST"}},
    {"uri": {"exact": contract.TTS_PATH}, "method": {"exact": "POST"}},
)
"""Requests that may be made twice: whoever hears only one of the answers notices nothing."""

RETRIES: Final[Retries] = {
    "attempts": 2,
    # Nothing is retried once the server may have begun: that would cost GPU time twice.
    "retryOn": "connect-failure,refused-stream,reset-before-request",
    # Not a matter of course: with a consistent hash, Istio has the same pod tried again.
    "retryIgnorePreviousHosts": True,
}
VIP_CALLER: Final[Mapping[str, StringMatch]] = {
    # Written by the gateway from a token that it has verified; no header that a client can send.
    f"@request.auth.claims.{contract.TIER_CLAIM}": {"exact": contract.VIP_TIER}
}
NAMES_A_VOICE: Final[Mapping[str, StringMatch]] = {contract.VOICE_ID_HEADER: {"regex": ".+"}}


def service_host(service: str, namespace: pulumi.Input[str]) -> pulumi.Output[str]:
    """Full name of a Service. A short one would be read in the namespace of whoever uses it."""
    return pulumi.Output.concat(service, ".", namespace, ".svc.", CLUSTER_DOMAIN)


def subset_by_voice(variant: str) -> str:
    """The subset of a variant in which the voice of a request decides about its pod.

    It has the same pods as the one named like the variant. Two are needed: where a request names no
    voice, Envoy's consistent hash takes any pod, however busy
    (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/load_balancers).
    """
    return f"{variant}-by-voice"


@dataclass(frozen=True)
class Way:
    """Where requests of one kind go.

    Attributes:
        name: name of its route, as proxies log it.
        shares: subsets, and their parts of the requests in percent.
        headers: what requests of this kind have in their headers.
        paths: what else they have; None for all that is served.
        copies: where some of them are sent as well.
    """

    name: str
    shares: Mapping[str, int]
    headers: Mapping[str, StringMatch] = field(default_factory=dict)
    paths: Sequence[HttpMatch] | None = None
    copies: Mapping[str, float] = field(default_factory=dict)


def public_routes(service: str, args: TtsVoiceServiceArgs) -> VirtualServiceSpec:
    """Routes of the public gateway. The first that fits is taken."""
    gateways = [] if args.gateway_ref is None else [args.gateway_ref]
    ways = [*_experiments(args), *_vip(args), *_by_weight(args)]
    return {
        "hosts": list(args.hosts),
        "gateways": gateways,
        "http": [_for_clients(route, args) for route in _routes(service, args, ways, PUBLIC_PATHS)],
    }


def _for_clients(route: HttpRoute, args: TtsVoiceServiceArgs) -> HttpRoute:
    """What a route does besides for clients that are not trusted."""
    route = {**route, "headers": forwarded_headers()}
    if args.allowed_origins:
        route["corsPolicy"] = cors_policy(args.allowed_origins)
    return route


def cors_policy(origins: Sequence[str]) -> CorsPolicy:
    """Lets pages of these origins call a voice with a token, and read what its answers say."""
    return {
        "allowOrigins": [{"exact": origin} for origin in origins],
        "allowMethods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
        "allowHeaders": [
            "authorization",
            "content-type",
            contract.REQUEST_ID_HEADER,
            contract.VARIANT_HEADER,
            contract.VOICE_ID_HEADER,
        ],
        "exposeHeaders": [contract.REQUEST_ID_HEADER, "retry-after"],
        "maxAge": f"{PREFLIGHT_SECONDS}s",
        # Answered by the gateway or not at all.
        "unmatchedPreflights": "IGNORE",
    }


def mesh_routes(service: str, args: TtsVoiceServiceArgs) -> VirtualServiceSpec:
    """Routes of callers within the mesh: their own object, since what matches on a gateway (a
    claim of a token, for one) never matches on a sidecar."""
    return {
        "hosts": [service_host(service, args.namespace)],
        "gateways": [MESH_GATEWAY],
        "http": _routes(service, args, [*_experiments(args), *_by_weight(args)], ALL_PATHS),
    }


def _experiments(args: TtsVoiceServiceArgs) -> Iterator[Way]:
    """Requests that ask for a variant by its name, where it may be asked for."""
    for variant in args.experiments:
        asks: StringMatch = {"exact": variant}
        yield Way(f"experiment-{variant}", {variant: FULL_WEIGHT}, {contract.VARIANT_HEADER: asks})


def _vip(args: TtsVoiceServiceArgs) -> Iterator[Way]:
    if args.vip_variant is not None:
        yield Way("vip", {args.vip_variant: FULL_WEIGHT}, VIP_CALLER)


def _by_weight(args: TtsVoiceServiceArgs) -> Iterator[Way]:
    weighted = Way("weighted", {v.name: v.weight for v in args.variants if v.weight > 0})
    if args.mirroring is not None:
        copies = {args.mirroring.variant: args.mirroring.percent}
        yield replace(weighted, name="mirrored", paths=SYNTHESES, copies=copies)
    yield weighted


def _routes(
    service: str, args: TtsVoiceServiceArgs, ways: Sequence[Way], paths: Sequence[HttpMatch]
) -> list[HttpRoute]:
    host = service_host(service, args.namespace)
    return [
        _route(host, way, way.paths or paths)
        for general in ways
        for way in ((_by_voice(general), general) if args.voice_affinity else (general,))
    ]


def _by_voice(way: Way) -> Way:
    """The same, of those requests that name a voice."""
    return replace(
        way,
        name=f"{way.name}-by-voice",
        shares={subset_by_voice(variant): share for variant, share in way.shares.items()},
        headers={**way.headers, **NAMES_A_VOICE},
    )


def _route(host: pulumi.Input[str], way: Way, paths: Sequence[HttpMatch]) -> HttpRoute:
    destinations: list[WeightedDestination] = [
        {"destination": {"host": host, "subset": subset}, "weight": share}
        for subset, share in way.shares.items()
    ]
    copies: list[Mirror] = [
        {"destination": {"host": host, "subset": subset}, "percentage": {"value": percent}}
        for subset, percent in way.copies.items()
    ]
    matches = [_with_headers(path, way.headers) for path in paths]
    # No timeout: a stream is as long as its text. (Istio's default is none, and its CRD refuses
    # to have that written as 0s.)
    route: HttpRoute = {"name": way.name, "route": destinations, "retries": RETRIES}
    if any(matches):
        route["match"] = matches
    if copies:
        route["mirrors"] = copies
    return route


def _with_headers(match: HttpMatch, headers: Mapping[str, StringMatch]) -> HttpMatch:
    return {**match, "headers": dict(headers)} if headers else match
