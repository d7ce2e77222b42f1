"""How requests reach a voice: subsets, routes, and what happens to a pod that fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.istio.specs import (
    ConnectionPool,
    DestinationRuleSpec,
    HttpMatch,
    HttpRoute,
    LoadBalancer,
    LocalityLoadBalancing,
    OutlierDetection,
    Retries,
    StringMatch,
    Subset,
    VirtualServiceSpec,
    WeightedDestination,
)
from voicemesh.service.arguments import FULL_WEIGHT, ConnectionLimits, VoiceVariant

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
}
VIP_CALLER: Final[Mapping[str, StringMatch]] = {
    # Written by the gateway from a token that it has verified; no header that a client can send.
    f"@request.auth.claims.{contract.TIER_CLAIM}": {"exact": contract.VIP_TIER}
}


def service_host(service: str, namespace: pulumi.Input[str]) -> pulumi.Output[str]:
    """Full name of a Service. A short one would be read in the namespace of whoever uses it."""
    return pulumi.Output.concat(service, ".", namespace, ".svc.", CLUSTER_DOMAIN)


def max_ejection_percent(minimum_replicas: int) -> int:
    """The smallest useful share of pods that may be ejected at the same time.

    Envoy ejects a pod only if the ejected share stays within the limit, and Istio's default of
    10 % ejects nothing in a pool of fewer than ten: one pod of N needs 100/N. Half of a pool may
    go, so that one fault that hits every pod never empties it; a single pod may go as well.
    """
    return max(50, math.ceil(100 / minimum_replicas))


def outlier_detection(minimum_replicas: int) -> OutlierDetection:
    """Three failures in a row take a pod out for five minutes."""
    return {
        "consecutive5xxErrors": 3,
        "interval": "30s",
        "baseEjectionTime": "5m",
        "maxEjectionPercent": max_ejection_percent(minimum_replicas),
    }


def destination_rule(
    service: str,
    namespace: pulumi.Input[str],
    variants: Sequence[VoiceVariant],
    limits: ConnectionLimits,
) -> DestinationRuleSpec:
    """One subset for each variant."""
    return {
        "host": service_host(service, namespace),
        "trafficPolicy": {
            # Outlier detection turns locality failover on unless it is turned off.
            "loadBalancer": _least_request({"enabled": False}),
            "connectionPool": connection_pool(limits),
        },
        "subsets": [_subset(service, variant, variants) for variant in variants],
    }


def connection_pool(limits: ConnectionLimits) -> ConnectionPool:
    """Limits per proxy and subset."""
    return {
        "tcp": {"maxConnections": limits.max_connections, "connectTimeout": "2s"},
        "http": {
            "http1MaxPendingRequests": limits.max_pending_requests,
            "http2MaxRequests": limits.max_requests,
        },
    }


def falls_back(variant: VoiceVariant, variants: Sequence[VoiceVariant]) -> bool:
    """Whether a variant's requests go to the others while it has no pod: if it has just one."""
    return variant.minimum_replicas == 1 and len(variants) > 1


def _subset(service: str, variant: VoiceVariant, variants: Sequence[VoiceVariant]) -> Subset:
    own_label = f"{contract.VARIANT_LABEL}={variant.name}"
    if falls_back(variant, variants):
        return {
            "name": variant.name,
            "labels": {contract.APP_LABEL: service},
            "trafficPolicy": {
                # The subset holds all pods; those of the variant come first while any is healthy.
                "loadBalancer": _least_request({"enabled": True, "failoverPriority": [own_label]}),
                "outlierDetection": outlier_detection(sum(v.minimum_replicas for v in variants)),
            },
        }
    return {
        "name": variant.name,
        # Not the version: while pods change theirs one by one, a subset of it would be empty.
        "labels": {contract.VARIANT_LABEL: variant.name},
        "trafficPolicy": {"outlierDetection": outlier_detection(variant.minimum_replicas)},
    }


def _least_request(locality: LocalityLoadBalancing) -> LoadBalancer:
    return {"simple": "LEAST_REQUEST", "localityLbSetting": locality}


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
