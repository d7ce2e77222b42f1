"""The pods that count requests: envoyproxy/ratelimit, and the Redis where its counters are.

Both have sidecars. Redis has no password: it answers nobody but the account of the service, and
the service nobody but the gateway, each by the certificate of its sidecar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ConfigMap,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    ContainerPortArgs,
    EnvVarArgs,
    HTTPGetActionArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    Namespace,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    Service,
    ServiceAccount,
    ServicePortArgs,
    ServiceSpecArgs,
    SleepActionArgs,
    TCPSocketActionArgs,
    TopologySpreadConstraintArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    NetworkPolicy,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from voicemesh import contract
from voicemesh.component import after, child_options
from voicemesh.gateway.quota import (
    RATELIMIT,
    RATELIMIT_PORT,
    RequestQuota,
    limits,
    quota_filter,
)
from voicemesh.istio import AuthorizationPolicy, EnvoyFilter
from voicemesh.istio.specs import AuthorizationPolicySpec, EnvoyFilterSpec
from voicemesh.mesh import TRUST_DOMAIN
from voicemesh.sizes import ComputeSize, memory_quantity

REDIS: Final = "redis"
REDIS_PORT: Final = 6379
_HEALTH_PORT: Final = 8080
_METRICS_PORT: Final = 9090
_PROXY_METRICS_PORT: Final = 15020
_PRE_STOP_SECONDS: Final = 5
"""A pod that ends still answers for this long, until the gateway's proxies know."""
_SILENT_SECONDS: Final = 3
_IPPROTO_TCP: Final = 6
_TCP_USER_TIMEOUT: Final = 18
_REDIS_MEMORY_SHARE: Final = 0.5
"""Of its limit: the rest is for connections and what the allocator leaves unused."""
_LIMITS_FILE: Final = "limits.yaml"
_MONITORING: Final = {"kubernetes.io/metadata.name": contract.MONITORING_NAMESPACE}

_CONFINED: Final = SecurityContextArgs(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    capabilities=CapabilitiesArgs(drop=["ALL"]),
)


@dataclass(frozen=True)
class _Part:
    """One Deployment with its Service, and who may call it."""

    app: str
    deployment: DeploymentSpecArgs
    port_name: str
    port: int
    caller: str
    caller_labels: Mapping[str, str]


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
    store = _Part(
        REDIS,
        redis_deployment(quota, annotations),
        *("tcp-redis", REDIS_PORT),
        principal(namespace_name, RATELIMIT),
        {contract.APP_LABEL: RATELIMIT},
    )
    service = _Part(
        RATELIMIT,
        ratelimit_deployment(quota, annotations),
        *("grpc", RATELIMIT_PORT),
        principal(namespace_name, name),
        {"istio": name},
    )
    stored = _declare(parent, name, within, store, [])
    configuration = _declare_limits(parent, name, within, quota)
    connections = EnvoyFilter(
        f"{name}-{REDIS}",
        ObjectMetaArgs(name=REDIS, namespace=within),
        store_connections(namespace_name),
        child_options(parent),
    )
    ready = _declare(parent, name, within, service, [configuration, connections, *stored])
    return EnvoyFilter(
        f"{name}-quota",
        ObjectMetaArgs(name=f"{name}-quota", namespace=within),
        quota_filter(name, namespace_name, quota),
        child_options(parent, pulumi.ResourceOptions(depends_on=ready)),
    )


def _declare_limits(
    parent: pulumi.Resource, name: str, namespace: pulumi.Input[str], quota: RequestQuota
) -> ConfigMap:
    metadata = ObjectMetaArgs(name=RATELIMIT, namespace=namespace)
    PodDisruptionBudget(
        f"{name}-{RATELIMIT}",
        metadata=metadata,
        spec=PodDisruptionBudgetSpecArgs(
            max_unavailable=1,
            unhealthy_pod_eviction_policy="AlwaysAllow",
            selector=_pods(RATELIMIT),
        ),
        opts=child_options(parent),
    )
    return ConfigMap(
        f"{name}-{RATELIMIT}",
        metadata=metadata,
        data={_LIMITS_FILE: limits(quota)},
        opts=child_options(parent),
    )


def _declare(
    parent: pulumi.Resource,
    name: str,
    namespace: pulumi.Input[str],
    part: _Part,
    needed: Sequence[pulumi.Resource],
) -> list[pulumi.Resource]:
    urn, opts = f"{name}-{part.app}", child_options(parent)
    metadata = ObjectMetaArgs(name=part.app, namespace=namespace)
    account = ServiceAccount(
        urn, metadata=metadata, automount_service_account_token=False, opts=opts
    )
    callers = may_call(part.app, part.caller, part.port)
    allowed = AuthorizationPolicy(urn, metadata, callers, opts)
    reachable = reachable_from(part.caller_labels, part.app, part.port)
    network = NetworkPolicy(urn, metadata=metadata, spec=reachable, opts=opts)
    started_after = pulumi.ResourceOptions(depends_on=[account, allowed, network, *needed])
    deployment = Deployment(
        urn, metadata=metadata, spec=part.deployment, opts=child_options(parent, started_after)
    )
    service = Service(
        urn,
        metadata=metadata,
        spec=ServiceSpecArgs(
            selector={contract.APP_LABEL: part.app},
            ports=[ServicePortArgs(name=part.port_name, port=part.port)],
        ),
        # Pulumi waits for its endpoints, and would make fewer things at a time meanwhile.
        opts=child_options(parent, pulumi.ResourceOptions(depends_on=[deployment])),
    )
    return [service, deployment]


def principal(namespace: str, account: str) -> str:
    """Identity of an account's pods."""
    return f"{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def may_call(app: str, caller: str, port: int) -> AuthorizationPolicySpec:
    """Lets one account call these pods at one port, and nobody else at any."""
    return {
        "selector": {"matchLabels": {contract.APP_LABEL: app}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [{"source": {"principals": [caller]}}],
                "to": [{"operation": {"ports": [str(port)]}}],
            }
        ],
    }


def reachable_from(callers: Mapping[str, str], app: str, port: int) -> NetworkPolicySpecArgs:
    """Lets pods of the namespace with these labels reach a port, and Prometheus the metrics."""
    labels = LabelSelectorArgs(match_labels=callers)
    monitoring = LabelSelectorArgs(match_labels=_MONITORING)
    return NetworkPolicySpecArgs(
        pod_selector=_pods(app),
        policy_types=["Ingress"],
        ingress=[
            NetworkPolicyIngressRuleArgs(
                from_=[NetworkPolicyPeerArgs(pod_selector=labels)],
                ports=[NetworkPolicyPortArgs(port=port, protocol="TCP")],
            ),
            NetworkPolicyIngressRuleArgs(
                from_=[NetworkPolicyPeerArgs(namespace_selector=monitoring)],
                ports=[NetworkPolicyPortArgs(port=_PROXY_METRICS_PORT, protocol="TCP")],
            ),
        ],
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


def ratelimit_deployment(
    quota: RequestQuota, annotations: Mapping[str, pulumi.Input[str]]
) -> DeploymentSpecArgs:
    """The service that counts. It reads a changed limit by itself, once its file has changed."""
    metrics = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(_METRICS_PORT),
        "prometheus.io/path": "/metrics",
    }
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
        lifecycle=LifecycleArgs(
            pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=_PRE_STOP_SECONDS))
        ),
        resources=_resources(quota.ratelimit),
        security_context=_CONFINED,
        volume_mounts=[VolumeMountArgs(name="limits", mount_path=folder, read_only=True)],
        termination_message_policy="FallbackToLogsOnError",
    )
    volume = VolumeArgs(name="limits", config_map=ConfigMapVolumeSourceArgs(name=RATELIMIT))
    return _deployment(RATELIMIT, quota.replicas, container, [volume], {**metrics, **annotations})


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


def redis_deployment(
    quota: RequestQuota, annotations: Mapping[str, pulumi.Input[str]]
) -> DeploymentSpecArgs:
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
        resources=_resources(quota.redis),
        security_context=_CONFINED,
        termination_message_policy="FallbackToLogsOnError",
    )
    return _deployment(REDIS, 1, container, [], annotations)


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


def _deployment(
    app: str,
    replicas: int,
    container: ContainerArgs,
    volumes: Sequence[VolumeArgs],
    annotations: Mapping[str, pulumi.Input[str]],
) -> DeploymentSpecArgs:
    return DeploymentSpecArgs(
        replicas=replicas,
        selector=_pods(app),
        strategy=DeploymentStrategyArgs(
            type="RollingUpdate",
            rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
        ),
        template=PodTemplateSpecArgs(
            metadata=ObjectMetaArgs(
                labels={contract.APP_LABEL: app},
                annotations={"kubectl.kubernetes.io/default-container": app, **annotations},
            ),
            spec=PodSpecArgs(
                service_account_name=app,
                automount_service_account_token=False,
                # The variables of a Service named ratelimit or redis would look like settings.
                enable_service_links=False,
                topology_spread_constraints=_spread(app),
                security_context=PodSecurityContextArgs(
                    run_as_non_root=True,
                    run_as_user=contract.UNPRIVILEGED_USER,
                    run_as_group=contract.UNPRIVILEGED_USER,
                    seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
                ),
                containers=[container],
                volumes=volumes,
            ),
        ),
    )


def _spread(app: str) -> list[TopologySpreadConstraintArgs]:
    return [
        TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=_pods(app),
        )
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _resources(size: ComputeSize) -> ResourceRequirementsArgs:
    return ResourceRequirementsArgs(
        requests=size.requests, limits={"memory": memory_quantity(size.memory_gib)}
    )


def _pods(app: str) -> LabelSelectorArgs:
    return LabelSelectorArgs(match_labels={contract.APP_LABEL: app})
