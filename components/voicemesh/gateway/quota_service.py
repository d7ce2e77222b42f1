"""The pods that count requests: envoyproxy/ratelimit, and the Redis where its counters are.

Both have sidecars. Redis has no password: it answers nobody but the account of the service, and
the service nobody but the gateway, each by the certificate of its sidecar.
"""

from collections.abc import Mapping
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import (
    ConfigMap,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    ContainerPortArgs,
    EnvVarArgs,
    HTTPGetActionArgs,
    Namespace,
    ProbeArgs,
    ServicePortArgs,
    TCPSocketActionArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.component import after, child_options
from voicemesh.gateway.internal_service import (
    ANSWERING_ON,
    CONFINED,
    InternalService,
    principal,
    resources,
    scraped,
)
from voicemesh.gateway.quota import (
    RATELIMIT,
    RATELIMIT_PORT,
    RequestQuota,
    limits,
    quota_filter,
)
from voicemesh.istio import EnvoyFilter
from voicemesh.istio.specs import EnvoyFilterSpec
from voicemesh.sizes import ComputeSize

REDIS: Final = "redis"
REDIS_PORT: Final = 6379
_HEALTH_PORT: Final = 8080
_METRICS_PORT: Final = 9090
_SILENT_SECONDS: Final = 3
_IPPROTO_TCP: Final = 6
_TCP_USER_TIMEOUT: Final = 18
_REDIS_MEMORY_SHARE: Final = 0.5
"""Of its limit: the rest is for connections and what the allocator leaves unused."""
_LIMITS_FILE: Final = "limits.yaml"


def declare_quota(
    parent: pulumi.Resource,
    name: str,
    namespace: Namespace,
    namespace_name: str,
    quota: RequestQuota,
    annotations: Mapping[str, pulumi.Input[str]],
) -> EnvoyFilter:
    """All that counts requests, and the filter by which the gateway asks it, once it is ready.

    Args:
        parent: the gateway.
        name: its name, with which those of all resources begin.
        namespace: its namespace, where everything goes.
        namespace_name: name of that.
        quota: what is counted.
        annotations: further ones of the pods.
    """
    within = after(namespace_name, namespace)
    stored = redis(namespace_name, quota, annotations).declare(parent, name, within)
    limits_file = ConfigMap(
        f"{name}-{RATELIMIT}",
        metadata=ObjectMetaArgs(name=RATELIMIT, namespace=within),
        data={_LIMITS_FILE: limits(quota)},
        opts=child_options(parent),
    )
    connections = EnvoyFilter(
        f"{name}-{REDIS}",
        ObjectMetaArgs(name=REDIS, namespace=within),
        store_connections(namespace_name),
        child_options(parent),
    )
    ready = ratelimit(name, namespace_name, quota, annotations).declare(
        parent, name, within, [limits_file, connections, *stored]
    )
    return EnvoyFilter(
        f"{name}-quota",
        ObjectMetaArgs(name=f"{name}-quota", namespace=within),
        quota_filter(name, namespace_name, quota),
        child_options(parent, pulumi.ResourceOptions(depends_on=ready)),
    )


def store_connections(namespace: str) -> EnvoyFilterSpec:
    """Has the sidecars of the service give up a connection on which Redis is silent.

    The service itself waits for each answer without an end. When a node is gone, with nobody left
    to reset its connections, Linux would wait for a quarter of an hour (tcp(7), tcp_retries2).
    """
    option = {
        "level": _IPPROTO_TCP,
        "name": _TCP_USER_TIMEOUT,
        "int_value": _SILENT_SECONDS * 1000,
        "state": "STATE_PREBIND",
    }
    service = f"{REDIS}.{namespace}.svc.cluster.local"
    return {
        "workloadSelector": {"labels": {contract.APP_LABEL: RATELIMIT}},
        "configPatches": [
            {
                "applyTo": "CLUSTER",
                "match": {
                    "context": "SIDECAR_OUTBOUND",
                    "cluster": {"service": service, "portNumber": REDIS_PORT},
                },
                "patch": {
                    "operation": "MERGE",
                    "value": {"upstream_bind_config": {"socket_options": [option]}},
                },
            }
        ],
    }


def ratelimit(
    gateway: str,
    namespace: str,
    quota: RequestQuota,
    annotations: Mapping[str, pulumi.Input[str]],
) -> InternalService:
    """The service that counts. It reads a changed limit by itself, once its file has changed."""
    folder = f"/limits/{RATELIMIT}/config"
    container = ContainerArgs(
        name=RATELIMIT,
        image=quota.ratelimit_image,
        image_pull_policy="IfNotPresent",
        # The image has no entry point.
        command=["/bin/ratelimit"],
        env=[EnvVarArgs(name=key, value=value) for key, value in ratelimit_settings().items()],
        ports=[
            ContainerPortArgs(name="grpc", container_port=RATELIMIT_PORT),
            ContainerPortArgs(name="health", container_port=_HEALTH_PORT),
        ],
        readiness_probe=ProbeArgs(
            http_get=HTTPGetActionArgs(path="/healthcheck", port="health"),
            period_seconds=1,
            failure_threshold=1,
        ),
        lifecycle=ANSWERING_ON,
        resources=resources(quota.ratelimit),
        security_context=CONFINED,
        volume_mounts=[VolumeMountArgs(name="limits", mount_path=folder, read_only=True)],
        termination_message_policy="FallbackToLogsOnError",
    )
    return InternalService(
        RATELIMIT,
        container,
        ServicePortArgs(name="grpc", port=RATELIMIT_PORT),
        caller=principal(namespace, gateway),
        caller_labels={"istio": gateway},
        replicas=quota.replicas,
        annotations={**scraped(_METRICS_PORT, contract.METRICS_PATH), **annotations},
        volumes=[VolumeArgs(name="limits", config_map=ConfigMapVolumeSourceArgs(name=RATELIMIT))],
    )


def ratelimit_settings() -> dict[str, str]:
    """https://github.com/envoyproxy/ratelimit/blob/main/src/settings/settings.go"""
    return {
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"{REDIS}:{REDIS_PORT}",
        "REDIS_TIMEOUT": "1s",
        # Without a connection its answers would wait for one: a pod that has none is not ready, and
        # the gateway's proxies ask it no more.
        "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": "true",
        "RUNTIME_ROOT": "/limits",
        "RUNTIME_SUBDIRECTORY": RATELIMIT,
        # Kubernetes changes a mounted file by another link to the folder that holds it: what has
        # to be watched is the folder, without the links that begin with a dot.
        "RUNTIME_WATCH_ROOT": "false",
        "RUNTIME_IGNOREDOTFILES": "true",
        "USE_STATSD": "false",
        "USE_PROMETHEUS": "true",
        "PROMETHEUS_ADDR": f":{_METRICS_PORT}",
        "LOG_FORMAT": "json",
    }


def redis(
    namespace: str, quota: RequestQuota, annotations: Mapping[str, pulumi.Input[str]]
) -> InternalService:
    """One Redis that keeps nothing: whoever restarts it gives every tenant its unit anew."""
    container = ContainerArgs(
        name=REDIS,
        image=quota.redis_image,
        image_pull_policy="IfNotPresent",
        args=redis_options(quota.redis),
        ports=[ContainerPortArgs(name="tcp-redis", container_port=REDIS_PORT)],
        readiness_probe=ProbeArgs(
            tcp_socket=TCPSocketActionArgs(port=REDIS_PORT), period_seconds=2
        ),
        resources=resources(quota.redis),
        security_context=CONFINED,
        termination_message_policy="FallbackToLogsOnError",
    )
    return InternalService(
        REDIS,
        container,
        ServicePortArgs(name="tcp-redis", port=REDIS_PORT),
        caller=principal(namespace, RATELIMIT),
        caller_labels={contract.APP_LABEL: RATELIMIT},
        replicas=1,
        annotations=annotations,
    )


def redis_options(size: ComputeSize) -> list[str]:
    """https://valkey.io/topics/valkey.conf"""
    memory_mebibytes = max(1, int(size.mebibytes * _REDIS_MEMORY_SHARE))
    options = {
        "save": "",
        "appendonly": "no",
        "maxmemory": f"{memory_mebibytes}mb",
        # Every counter expires; those that expire soonest make room.
        "maxmemory-policy": "volatile-ttl",
        # It refuses callers from elsewhere while there is no password. The sidecar decides.
        "protected-mode": "no",
    }
    return [part for key, value in options.items() for part in (f"--{key}", value)]
