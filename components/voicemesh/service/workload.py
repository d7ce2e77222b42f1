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

from voicemesh import contract
from voicemesh.service.arguments import TtsVoiceServiceArgs, VoiceVariant

PORT_NAME: Final = "http"
UNPRIVILEGED_USER: Final = 10001
"""The user of the bundled image; one that names none, or root, runs as it too."""
PRE_STOP_SECONDS: Final = 5
"""A pod that ends still takes requests for this long, until every proxy knows."""
TERMINATION_MARGIN_SECONDS: Final = 15
STARTUP_PERIOD_SECONDS: Final = 2
PROBE_TIMEOUT_SECONDS: Final = 5
SCRATCH_LIMIT: Final = "1Gi"


def termination_grace_seconds(max_stream_seconds: int) -> int:
    """Time from the request to end until a pod is killed: enough for its longest stream."""
    return PRE_STOP_SECONDS + max_stream_seconds + TERMINATION_MARGIN_SECONDS


def replacement_seconds(args: TtsVoiceServiceArgs) -> int:
    """How long it may take until a pod is replaced: its end, the image, and the next one's start.

    Only then does the next pod's turn come, since there is no GPU to start it on before.
    """
    ending = termination_grace_seconds(args.max_stream_seconds)
    return ending + args.image_pull_seconds + args.startup_seconds


def rollout_timeouts(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> pulumi.CustomTimeouts:
    """How long the engine waits for a variant's Deployment."""
    first_start = args.image_pull_seconds + args.startup_seconds
    one_by_one = variant.maximum_replicas * replacement_seconds(args)
    return pulumi.CustomTimeouts(create=f"{first_start}s", update=f"{one_by_one}s")


def selector_labels(service: str, variant: VoiceVariant) -> dict[str, str]:
    """Labels that tell a variant's pods apart and never change."""
    return {contract.APP_LABEL: service, contract.VARIANT_LABEL: variant.name}


def pod_labels(service: str, variant: VoiceVariant) -> dict[str, str]:
    """All labels of a variant's pods."""
    accelerator = {contract.ACCELERATOR_LABEL: variant.accelerator} if variant.accelerator else {}
    return {
        **selector_labels(service, variant),
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
        progress_deadline_seconds=replacement_seconds(args),
        template=PodTemplateSpecArgs(
            metadata=ObjectMetaArgs(
                labels=pod_labels(service, variant),
                annotations={"kubectl.kubernetes.io/default-container": "speech-server"},
            ),
            spec=_pod_spec(args, variant, account),
        ),
    )


def _pod_spec(
    args: TtsVoiceServiceArgs, variant: VoiceVariant, account: pulumi.Input[str]
) -> PodSpecArgs:
    return PodSpecArgs(
        service_account_name=account,
        automount_service_account_token=False,
        # The variables of a Service named speech-… would look like settings of the server.
        enable_service_links=False,
        node_selector=node_selector(args, variant),
        tolerations=tolerations(variant),
        termination_grace_period_seconds=termination_grace_seconds(args.max_stream_seconds),
        security_context=PodSecurityContextArgs(
            run_as_non_root=True,
            run_as_user=UNPRIVILEGED_USER,
            run_as_group=UNPRIVILEGED_USER,
            fs_group=UNPRIVILEGED_USER,
            seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
        ),
        containers=[_server(args, variant)],
        volumes=[
            VolumeArgs(name="scratch", empty_dir=EmptyDirVolumeSourceArgs(size_limit=SCRATCH_LIMIT))
        ],
    )


def node_selector(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> dict[str, str]:
    """Labels of the nodes that a variant may run on."""
    wanted = {
        contract.NODE_TYPE_LABEL: args.node_type,
        contract.ACCELERATOR_LABEL: variant.accelerator,
    }
    return {label: value for label, value in wanted.items() if value is not None}


def tolerations(variant: VoiceVariant) -> list[TolerationArgs]:
    """Taints of the nodes that a variant may run on: those with GPUs, if it uses any."""
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
        name="speech-server",
        image=variant.image,
        image_pull_policy="IfNotPresent",
        ports=[ContainerPortArgs(name=PORT_NAME, container_port=contract.HTTP_PORT)],
        env=_environment(args, variant.environment),
        resources=_resources(variant),
        security_context=SecurityContextArgs(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=CapabilitiesArgs(drop=["ALL"]),
        ),
        volume_mounts=[VolumeMountArgs(name="scratch", mount_path="/tmp")],  # noqa: S108
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
    )


def _environment(
    args: TtsVoiceServiceArgs, further: Mapping[str, pulumi.Input[str]]
) -> list[EnvVarArgs]:
    settings = {contract.DRAIN_VARIABLE: str(args.max_stream_seconds), **further}
    return [EnvVarArgs(name=name, value=value) for name, value in settings.items()]


def _resources(variant: VoiceVariant) -> ResourceRequirementsArgs:
    # Extended resources take no overcommit: request and limit must be equal.
    gpus = {variant.gpu_resource: str(variant.gpu_count)} if variant.gpu_count else {}
    requests = variant.size.requests
    return ResourceRequirementsArgs(
        requests={**requests, **gpus}, limits={"memory": requests["memory"], **gpus}
    )


def _probe(path: str, period_seconds: int, failures: int) -> ProbeArgs:
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=PORT_NAME),
        period_seconds=period_seconds,
        timeout_seconds=PROBE_TIMEOUT_SECONDS,
        failure_threshold=failures,
    )
