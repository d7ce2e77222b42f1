"""The pods of a variant: where they run, how they start, and how they end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import pulumi
from pulumi_kubernetes.apps.v1 import (
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    HTTPGetActionArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    SleepActionArgs,
    TolerationArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.policy.v1 import PodDisruptionBudgetSpecArgs

from voicemesh import contract
from voicemesh.placement import topology_spread
from voicemesh.revisions import restart_annotations
from voicemesh.service import pod_storage
from voicemesh.service.arguments import TtsVoiceServiceArgs, VoiceVariant
from voicemesh.service.resilience import backs_up

PORT_NAME: Final = "http"
SERVER_CONTAINER: Final = "speech-server"
PRE_STOP_SECONDS: Final = 5
"""A pod that ends still takes requests for this long, until every proxy knows."""
TERMINATION_MARGIN_SECONDS: Final = 15
STARTUP_PERIOD_SECONDS: Final = 2
PROBE_TIMEOUT_SECONDS: Final = 5
SCRATCH_LIMIT: Final = "1Gi"
_ANNOTATIONS: Final = {
    "kubectl.kubernetes.io/default-container": SERVER_CONTAINER,
    # The sidecar adds these metrics to its own, on a port that mutual TLS leaves alone
    # (https://istio.io/latest/docs/ops/integrations/prometheus/).
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(contract.HTTP_PORT),
    "prometheus.io/path": contract.METRICS_PATH,
    # Of slices of GPUs the Cluster Autoscaler counts none: a node that speaks on them may look idle
    # to it. It removes nodes that have no voice any more.
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
_CONFINED: Final = SecurityContextArgs(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    capabilities=CapabilitiesArgs(drop=["ALL"]),
)


def termination_grace_seconds(max_stream_seconds: int) -> int:
    """Time from the request to end until a pod is killed: enough for its longest stream."""
    return PRE_STOP_SECONDS + max_stream_seconds + TERMINATION_MARGIN_SECONDS


def first_start_seconds(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> int:
    """How long it may take until a pod on a new node speaks: its image, weights and start."""
    fetching = pod_storage.fetch_seconds(variant.model)
    return args.image_pull_seconds + fetching + args.startup_seconds


def replacement_seconds(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> int:
    """How long it may take until a pod is replaced: its end, and the next one's start.

    Only then does the next pod's turn come, since there is no GPU to start it on before.
    """
    ending = termination_grace_seconds(args.max_stream_seconds)
    return ending + first_start_seconds(args, variant)


def rollout_timeouts(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> pulumi.CustomTimeouts:
    """How long the engine waits for a variant's Deployment."""
    first_start = first_start_seconds(args, variant)
    one_by_one = variant.maximum_replicas * replacement_seconds(args, variant)
    return pulumi.CustomTimeouts(create=f"{first_start}s", update=f"{one_by_one}s")


def selector_labels(service: str, variant: VoiceVariant) -> dict[str, str]:
    """Labels that tell a variant's pods apart and never change."""
    return {contract.APP_LABEL: service, contract.VARIANT_LABEL: variant.name}


def pod_labels(service: str, args: TtsVoiceServiceArgs, variant: VoiceVariant) -> dict[str, str]:
    """All labels of a variant's pods."""
    accelerator = {contract.ACCELERATOR_LABEL: variant.accelerator} if variant.accelerator else {}
    return {
        **selector_labels(service, variant),
        contract.BACKUP_LABEL: "true" if backs_up(variant, args) else "false",
        contract.VERSION_LABEL: variant.version,
        **accelerator,
    }


def deployment_spec(
    service: str, args: TtsVoiceServiceArgs, variant: VoiceVariant, account: pulumi.Input[str]
) -> DeploymentSpecArgs:
    """A Deployment that replaces a pod only after it has given up its GPU."""
    return DeploymentSpecArgs(
        # An autoscaler that finds its number overwritten at each update would fight with them.
        replicas=None if variant.autoscaling else variant.minimum_replicas,
        selector=LabelSelectorArgs(match_labels=selector_labels(service, variant)),
        strategy=DeploymentStrategyArgs(
            type="RollingUpdate",
            rolling_update=RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1),
        ),
        progress_deadline_seconds=replacement_seconds(args, variant),
        template=PodTemplateSpecArgs(
            metadata=ObjectMetaArgs(
                labels=pod_labels(service, args, variant),
                annotations={
                    **_ANNOTATIONS,
                    **pod_storage.pod_annotations(args),
                    **restart_annotations(args.mesh_revision),
                },
            ),
            spec=_pod_spec(service, args, variant, account),
        ),
    )


def disruption_budget(service: str, variant: VoiceVariant) -> PodDisruptionBudgetSpecArgs:
    """One pod at a time may be evicted, be it the only one, and any that does not work.

    A budget in pods that must stay would keep the node of a single pod from ever being updated.
    Its requests go to the other variants meanwhile.
    """
    return PodDisruptionBudgetSpecArgs(
        max_unavailable=1,
        unhealthy_pod_eviction_policy="AlwaysAllow",
        selector=LabelSelectorArgs(match_labels=selector_labels(service, variant)),
    )


def _pod_spec(
    service: str, args: TtsVoiceServiceArgs, variant: VoiceVariant, account: pulumi.Input[str]
) -> PodSpecArgs:
    return PodSpecArgs(
        service_account_name=account,
        automount_service_account_token=False,
        # The variables of a Service named speech-… would look like settings of the server.
        enable_service_links=False,
        node_selector=node_selector(args, variant),
        tolerations=tolerations(variant),
        topology_spread_constraints=topology_spread(selector_labels(service, variant)),
        termination_grace_period_seconds=termination_grace_seconds(args.max_stream_seconds),
        security_context=PodSecurityContextArgs(
            run_as_non_root=True,
            # An image that names none, or root, runs as this user too.
            run_as_user=contract.UNPRIVILEGED_USER,
            run_as_group=contract.UNPRIVILEGED_USER,
            fs_group=contract.UNPRIVILEGED_USER,
            seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
        ),
        init_containers=pod_storage.init_containers(args, variant, _CONFINED),
        containers=[_server(args, variant)],
        volumes=[
            VolumeArgs(
                name="scratch", empty_dir=EmptyDirVolumeSourceArgs(size_limit=SCRATCH_LIMIT)
            ),
            *pod_storage.volumes(args, variant),
        ],
    )


def node_selector(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> dict[str, str]:
    """Labels of the nodes that a variant may run on."""
    wanted = {
        contract.NODE_TYPE_LABEL: args.node_type,
        contract.ACCELERATOR_LABEL: variant.accelerator,
        **variant.node_selector,
    }
    return {label: value for label, value in wanted.items() if value is not None}


def tolerations(variant: VoiceVariant) -> list[TolerationArgs]:
    """Taints of the nodes that a variant may run on: those with GPUs, if it uses any.

    Never that of nodes for offline work.
    """
    if variant.gpu_count == 0:
        return []
    return [
        TolerationArgs(
            key=contract.GPU_TAINT_KEY,
            operator="Equal",
            value=contract.GPU_TAINT_VALUE,
            effect="NoSchedule",
        )
    ]


def _server(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> ContainerArgs:
    return ContainerArgs(
        name=SERVER_CONTAINER,
        image=variant.image,
        image_pull_policy="IfNotPresent",
        ports=[ContainerPortArgs(name=PORT_NAME, container_port=contract.HTTP_PORT)],
        env=[
            *_environment(args, variant.environment),
            *pod_storage.server_environment(args, variant),
        ],
        resources=_resources(variant),
        security_context=_CONFINED,
        volume_mounts=[
            VolumeMountArgs(name="scratch", mount_path="/tmp"),  # noqa: S108
            *pod_storage.server_mounts(args, variant),
        ],
        lifecycle=LifecycleArgs(
            pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=PRE_STOP_SECONDS))
        ),
        startup_probe=_probe(
            contract.READY_PATH,
            period_seconds=STARTUP_PERIOD_SECONDS,
            failures=math.ceil(args.startup_seconds / STARTUP_PERIOD_SECONDS),
        ),
        readiness_probe=_probe(contract.READY_PATH, period_seconds=5, failures=2),
        liveness_probe=_probe(contract.HEALTH_PATH, period_seconds=10, failures=3),
        # Whoever asks for the pod reads which setting was refused.
        termination_message_policy="FallbackToLogsOnError",
    )


def _environment(
    args: TtsVoiceServiceArgs, further: Mapping[str, pulumi.Input[str]]
) -> list[EnvVarArgs]:
    settings = {contract.DRAIN_VARIABLE: str(args.max_stream_seconds), **further}
    if args.hosts and args.gateway_principal is not None:
        settings[contract.GATEWAY_PRINCIPAL_VARIABLE] = args.gateway_principal
    return [EnvVarArgs(name=name, value=value) for name, value in settings.items()]


def _resources(variant: VoiceVariant) -> ResourceRequirementsArgs:
    # Extended resources take no overcommit: request and limit must be equal.
    gpus = {variant.gpu_resource: str(variant.gpu_count)} if variant.gpu_count else {}
    requests = variant.size.requests
    return ResourceRequirementsArgs(
        requests={**requests, **pod_storage.disk_requests(variant.model), **gpus},
        limits={"memory": requests["memory"], **gpus},
    )


def _probe(path: str, period_seconds: int, failures: int) -> ProbeArgs:
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=PORT_NAME),
        period_seconds=period_seconds,
        timeout_seconds=PROBE_TIMEOUT_SECONDS,
        failure_threshold=failures,
    )
