"""What keeps a voice answering: pools of pods, and what happens to a pod that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from voicemesh import contract
from voicemesh.istio.specs import (
    ConnectionPool,
    DestinationRuleSpec,
    HttpConnectionPool,
    LoadBalancer,
    LocalityLoadBalancing,
    OutlierDetection,
    RetryBudget,
    Subset,
    TcpKeepalive,
    TrafficPolicy,
)
from voicemesh.service.arguments import (
    ConnectionLimits,
    Ejection,
    TtsVoiceServiceArgs,
    VoiceVariant,
)
from voicemesh.service.traffic import service_host, subset_by_voice

HALF: Final = 50

CONNECT_TIMEOUT: Final = "2s"

KEEPALIVE: Final[TcpKeepalive] = {"time": "60s", "interval": "10s", "probes": 3}
"""A stream has no time-out, however long it pauses. A node that is gone is noticed by this."""

MAGLEV_TABLE_SIZE: Final = 16381
"""Places that the pods of a subset share: a prime, and a hundred for each pod of a large one."""

RETRY_BUDGET: Final[RetryBudget] = {"percent": 20, "minRetryConcurrency": 10}
"""Retries at the same time, in percent of the requests in flight, but always up to ten."""


def destination_rule(service: str, args: TtsVoiceServiceArgs) -> DestinationRuleSpec:
    """One subset for each variant."""
    return {
        "host": service_host(service, args.namespace),
        "trafficPolicy": {
            # Outlier detection turns locality failover on unless it is turned off.
            "loadBalancer": least_request(args.warmup_seconds, {"enabled": False}),
            "connectionPool": connection_pool(args.connection_limits),
            "retryBudget": RETRY_BUDGET,
        },
        "subsets": [
            subset for variant in args.variants for subset in _subsets(service, variant, args)
        ],
    }


def _subsets(service: str, variant: VoiceVariant, args: TtsVoiceServiceArgs) -> Iterator[Subset]:
    subset = _subset(service, variant, args)
    yield subset
    if args.voice_affinity:
        yield _by_voice(subset)


def _by_voice(subset: Subset) -> Subset:
    """The same pods; which of them a request goes to is decided by the voice that it names."""
    policy = subset["trafficPolicy"]
    locality = policy.get("loadBalancer", {}).get("localityLbSetting", {"enabled": False})
    balancer: LoadBalancer = {
        "consistentHash": {
            "httpHeaderName": contract.VOICE_ID_HEADER,
            "maglev": {"tableSize": MAGLEV_TABLE_SIZE},
        },
        "localityLbSetting": locality,
    }
    return {
        **subset,
        "name": subset_by_voice(subset["name"]),
        "trafficPolicy": {**policy, "loadBalancer": balancer},
    }


def connection_pool(limits: ConnectionLimits) -> ConnectionPool:
    """Limits per proxy and subset."""
    http: HttpConnectionPool = {
        "http1MaxPendingRequests": limits.max_pending_requests,
        "http2MaxRequests": limits.max_requests,
    }
    if limits.max_requests_per_connection:
        http["maxRequestsPerConnection"] = limits.max_requests_per_connection
    return {
        "tcp": {
            "maxConnections": limits.max_connections,
            "connectTimeout": CONNECT_TIMEOUT,
            "tcpKeepalive": KEEPALIVE,
        },
        "http": http,
    }


def least_request(warmup_seconds: int, locality: LocalityLoadBalancing) -> LoadBalancer:
    """To the less busy one of two pods, which leaves a busy GPU alone."""
    balancer: LoadBalancer = {"simple": "LEAST_REQUEST", "localityLbSetting": locality}
    if warmup_seconds:
        balancer["warmup"] = {"duration": f"{warmup_seconds}s"}
    return balancer


def outlier_detection(ejection: Ejection, minimum_replicas: int) -> OutlierDetection:
    """Which failures take a pod of a pool out, for how long, and how many at a time."""
    return {
        "consecutive5xxErrors": ejection.consecutive_errors,
        "interval": f"{ejection.interval_seconds}s",
        "baseEjectionTime": f"{ejection.base_seconds}s",
        "maxEjectionPercent": max_ejection_percent(ejection, minimum_replicas),
        # Below a share of healthy pods that is not 0, Envoy sends requests to ejected ones too.
        "minHealthPercent": 0,
    }


def max_ejection_percent(ejection: Ejection, minimum_replicas: int) -> int:
    """The share of pods that may be out at the same time, which is never less than one pod.

    Envoy ejects a pod only if the ejected share stays within the limit, and Istio's default of
    10 % ejects nothing in a pool of fewer than ten: one pod of N needs 100/N.
    """
    return max(ejection.max_percent or HALF, math.ceil(100 / minimum_replicas))


def backs_up(variant: VoiceVariant, args: TtsVoiceServiceArgs) -> bool:
    """Whether a variant's pods answer for one whose single pod is out."""
    if variant.backs_up is not None:
        return variant.backs_up
    return variant.name != args.vip_variant and not gets_copies(variant, args)


def gets_copies(variant: VoiceVariant, args: TtsVoiceServiceArgs) -> bool:
    """Whether a variant is there for copies of requests, which must never reach another one."""
    return args.mirroring is not None and args.mirroring.variant == variant.name


def pool(variant: VoiceVariant, args: TtsVoiceServiceArgs) -> list[VoiceVariant]:
    """The variants whose pods may answer for a variant: its own, and others if it has just one.

    One that does not back up others falls back on all of them: a pool is selected by labels, which
    cannot say "its own pods or those".
    """
    if variant.minimum_replicas > 1 or gets_copies(variant, args):
        return [variant]
    if not backs_up(variant, args):
        return list(args.variants)
    return [other for other in args.variants if backs_up(other, args)]


def _subset(service: str, variant: VoiceVariant, args: TtsVoiceServiceArgs) -> Subset:
    members = pool(variant, args)
    pods = sum(member.minimum_replicas for member in members)
    policy: TrafficPolicy = {"outlierDetection": outlier_detection(args.ejection, pods)}
    if len(members) > 1:
        own_label = f"{contract.VARIANT_LABEL}={variant.name}"
        # The subset holds the pods of all members; those of the variant come first while any is
        # healthy.
        locality: LocalityLoadBalancing = {"enabled": True, "failoverPriority": [own_label]}
        policy["loadBalancer"] = least_request(args.warmup_seconds, locality)
    return {
        "name": variant.name,
        "labels": _pool_labels(service, variant, args, members),
        "trafficPolicy": policy,
    }


def _pool_labels(
    service: str, variant: VoiceVariant, args: TtsVoiceServiceArgs, members: list[VoiceVariant]
) -> dict[str, str]:
    if len(members) == 1:
        # Not the version: while pods change theirs one by one, a subset of it would be empty.
        return {contract.VARIANT_LABEL: variant.name}
    shared = {contract.BACKUP_LABEL: "true"} if backs_up(variant, args) else {}
    return {contract.APP_LABEL: service, **shared}
