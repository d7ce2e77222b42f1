"""KEDA's ScaledObject, typed as far as the components write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypedDict

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

Text = pulumi.Input[str]

_API_VERSION: Final = "keda.sh/v1alpha1"


class ScaleTarget(TypedDict):
    apiVersion: str
    kind: str
    name: Text


class PrometheusQuery(TypedDict):
    serverAddress: Text
    query: Text
    threshold: str
    ignoreNullValues: Literal["true", "false"]


class Trigger(TypedDict):
    type: Literal["prometheus"]
    name: str
    metricType: Literal["AverageValue"]
    metadata: PrometheusQuery


class ScalingPolicy(TypedDict):
    type: Literal["Pods"]
    value: int
    periodSeconds: int


class ScalingRules(TypedDict):
    stabilizationWindowSeconds: int
    policies: Sequence[ScalingPolicy]


class Behavior(TypedDict):
    scaleDown: ScalingRules


class HorizontalPodAutoscalerConfig(TypedDict):
    behavior: Behavior


class Advanced(TypedDict):
    horizontalPodAutoscalerConfig: HorizontalPodAutoscalerConfig


class ScaledObjectSpec(TypedDict):
    scaleTargetRef: ScaleTarget
    minReplicaCount: int
    maxReplicaCount: int
    pollingInterval: int
    advanced: Advanced
    triggers: Sequence[Trigger]


class ScaledObject(CustomResource):
    """What KEDA scales, by what, and between which bounds."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: ScaledObjectSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _API_VERSION, "ScaledObject", spec, metadata, opts)
