"""What keeps a voice answering: pools of pods, and what happens to a pod that fails."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pulumi

from voicemesh import contract
from voicemesh.istio.specs import (
    ConnectionPool,
    DestinationRuleSpec,
    LoadBalancer,
    LocalityLoadBalancing,
    OutlierDetection,
    Subset,
)
from voicemesh.service.arguments import ConnectionLimits, VoiceVariant
from voicemesh.service.traffic import service_host


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
