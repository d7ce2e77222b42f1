"""How requests reach a voice: its routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.istio.specs import (
    HttpMatch,
    HttpRoute,
    Retries,
    StringMatch,
    VirtualServiceSpec,
    WeightedDestination,
)
from voicemesh.service.arguments import FULL_WEIGHT, VoiceVariant

CLUSTER_DOMAIN: Final = "cluster.local"
MESH_GATEWAY: Final = "mesh"

PUBLIC_PATHS: Final[Sequence[HttpMatch]] = (
    {"uri": {"prefix": "/v1/"}},
    {"uri": {"exact": contract.TTS_PATH}},
    {"uri": {"exact": contract.HEALTH_PATH}},
)
"""What the public gateway passes on. Any other path, `/metrics` among them, is answered 404."""

RETRIES: Final[Retries] = {
    "attempts": 1,
    # Nothing is retried once the server may have begun: that would cost GPU time twice.
    "retryOn": "connect-failure,refused-stream,reset-before-request",
    "retryIgnorePreviousHosts": True,
}
VIP_CALLER: Final[Mapping[str, StringMatch]] = {
    # Written by the gateway from a token that it has verified; no header that a client can send.
    f"@request.auth.claims.{contract.TIER_CLAIM}": {"exact": contract.VIP_TIER}
}


def service_host(service: str, namespace: pulumi.Input[str]) -> pulumi.Output[str]:
    """Full name of a Service. A short one would be read in the namespace of whoever uses it."""
    return pulumi.Output.concat(service, ".", namespace, ".svc.", CLUSTER_DOMAIN)


def public_routes(
    service: str,
    namespace: pulumi.Input[str],
    variants: Sequence[VoiceVariant],
    hosts: Sequence[str],
    gateway_ref: pulumi.Input[str],
    vip_variant: str | None = None,
) -> VirtualServiceSpec:
    """Routes of the public gateway: the pool for VIP callers first, where there is one."""
    routes: list[HttpRoute] = []
    if vip_variant is not None:
        pool: WeightedDestination = {
            "destination": {"host": service_host(service, namespace), "subset": vip_variant},
            "weight": FULL_WEIGHT,
        }
        matches: list[HttpMatch] = [{**path, "headers": dict(VIP_CALLER)} for path in PUBLIC_PATHS]
        routes.append({"match": matches, "route": [pool], "retries": RETRIES})
    routes.append({"match": list(PUBLIC_PATHS), **_weighted(service, namespace, variants)})
    return {"hosts": list(hosts), "gateways": [gateway_ref], "http": routes}


def mesh_routes(
    service: str, namespace: pulumi.Input[str], variants: Sequence[VoiceVariant]
) -> VirtualServiceSpec:
    """Routes of callers within the mesh: their own object, since what matches on a gateway (a
    claim of a token, for one) never matches on a sidecar."""
    return {
        "hosts": [service_host(service, namespace)],
        "gateways": [MESH_GATEWAY],
        "http": [_weighted(service, namespace, variants)],
    }


def _weighted(
    service: str, namespace: pulumi.Input[str], variants: Sequence[VoiceVariant]
) -> HttpRoute:
    host = service_host(service, namespace)
    destinations: list[WeightedDestination] = [
        {"destination": {"host": host, "subset": variant.name}, "weight": variant.weight}
        for variant in variants
        if variant.weight > 0
    ]
    return {
        "route": destinations,
        # No timeout: a stream is as long as its text. (Istio's default is none, and its CRD refuses
        # to have that written as 0s.)
        "retries": RETRIES,
    }
