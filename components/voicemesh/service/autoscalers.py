"""What scales a variant: goals of `Autoscaling` in the words of KEDA and of Kubernetes."""

from __future__ import annotations

from typing import Final

import pulumi
from pulumi_kubernetes.autoscaling.v2 import (
    ContainerResourceMetricSourceArgs,
    CrossVersionObjectReferenceArgs,
    HorizontalPodAutoscalerBehaviorArgs,
    HorizontalPodAutoscalerSpecArgs,
    HPAScalingPolicyArgs,
    HPAScalingRulesArgs,
    MetricSpecArgs,
    MetricTargetArgs,
)

from voicemesh import contract
from voicemesh.service.arguments import VoiceVariant
from voicemesh.service.keda import PrometheusQuery, ScaledObjectSpec, ScalingPolicy, Trigger
from voicemesh.service.scaling import Autoscaling
from voicemesh.service.workload import SERVER_CONTAINER

POLLING_SECONDS: Final = 15
SCALE_DOWN: Final[ScalingPolicy] = {"type": "Pods", "value": 1, "periodSeconds": 60}
"""One pod a minute: whether the others keep up shows in the queue only after a while."""


def scaled_object(
    deployment: str,
    namespace: pulumi.Input[str],
    prometheus_url: pulumi.Input[str],
    variant: VoiceVariant,
    autoscaling: Autoscaling,
) -> ScaledObjectSpec:
    """Scales by the requests that wait, then by the use of GPUs.

    Without Prometheus the number of pods stays what it is, since no `fallback` is given: KEDA sets
    a fallback's replicas by itself as soon as one poll fails, whatever its `behavior` says
    (https://github.com/kedacore/keda/issues/6659).
    """
    selector = (deployment, namespace)
    triggers = [_queue_depth(prometheus_url, *selector, autoscaling.queue_depth_per_replica)]
    if variant.gpu_count and autoscaling.gpu_utilization_percent is not None:
        percent = autoscaling.gpu_utilization_percent * variant.gpu_count
        triggers.append(_gpu_activity(prometheus_url, *selector, percent))
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
        "minReplicaCount": autoscaling.min_replicas,
        "maxReplicaCount": autoscaling.max_replicas,
        "pollingInterval": POLLING_SECONDS,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleDown": {
                        "stabilizationWindowSeconds": autoscaling.scale_down_stabilization_seconds,
                        "policies": [SCALE_DOWN],
                    }
                }
            }
        },
        "triggers": triggers,
    }


def cpu_autoscaler(deployment: str, autoscaling: Autoscaling) -> HorizontalPodAutoscalerSpecArgs:
    """Scales by the CPU that the speech server uses; its sidecar's does not count."""
    target = MetricTargetArgs(type="Utilization", average_utilization=autoscaling.cpu_percent)
    return HorizontalPodAutoscalerSpecArgs(
        scale_target_ref=CrossVersionObjectReferenceArgs(
            api_version="apps/v1", kind="Deployment", name=deployment
        ),
        min_replicas=autoscaling.min_replicas,
        max_replicas=autoscaling.max_replicas,
        metrics=[
            MetricSpecArgs(
                type="ContainerResource",
                container_resource=ContainerResourceMetricSourceArgs(
                    name="cpu", container=SERVER_CONTAINER, target=target
                ),
            )
        ],
        behavior=HorizontalPodAutoscalerBehaviorArgs(
            scale_down=HPAScalingRulesArgs(
                stabilization_window_seconds=autoscaling.scale_down_stabilization_seconds,
                policies=[
                    HPAScalingPolicyArgs(
                        type=SCALE_DOWN["type"],
                        value=SCALE_DOWN["value"],
                        period_seconds=SCALE_DOWN["periodSeconds"],
                    )
                ],
            )
        ),
    )


def _queue_depth(
    prometheus_url: pulumi.Input[str], deployment: str, namespace: pulumi.Input[str], depth: int
) -> Trigger:
    series = _series(contract.QUEUE_DEPTH_METRIC, deployment, namespace)
    # No value at all is no empty queue: nobody counts, so no pod is taken away.
    return _trigger("queue-depth", prometheus_url, ["sum(", series, ")"], depth, empty_is_0=False)


def _gpu_activity(
    prometheus_url: pulumi.Input[str], deployment: str, namespace: pulumi.Input[str], percent: int
) -> Trigger:
    # A scrape that does not honour the exporter's labels has its pods as `exported_pod`.
    own, exported = (
        _series(contract.GPU_ACTIVITY_METRIC, deployment, namespace, prefix)
        for prefix in ("", "exported_")
    )
    query = ["100 * (sum(", own, ") or sum(", exported, "))"]
    # Under MIG and time-slicing some exporters name no pods: the queue decides alone then.
    return _trigger("gpu-activity", prometheus_url, query, percent, empty_is_0=True)


def pod_names(deployment: str) -> str:
    """The names of a Deployment's pods, for Prometheus to match: its own and two random parts."""
    return f"{deployment}-[a-z0-9]+-[a-z0-9]+"


def _series(
    metric: str, deployment: str, namespace: pulumi.Input[str], prefix: str = ""
) -> pulumi.Output[str]:
    pods = f'{prefix}pod=~"{pod_names(deployment)}"'
    return pulumi.Output.concat(metric, f'{{{prefix}namespace="', namespace, f'",{pods}}}')


def _trigger(
    name: str,
    prometheus_url: pulumi.Input[str],
    query: list[pulumi.Input[str]],
    threshold: int,
    empty_is_0: bool,
) -> Trigger:
    metadata: PrometheusQuery = {
        "serverAddress": prometheus_url,
        "query": pulumi.Output.concat(*query),
        "threshold": str(threshold),
        "ignoreNullValues": "true" if empty_is_0 else "false",
    }
    return {"type": "prometheus", "name": name, "metricType": "AverageValue", "metadata": metadata}
