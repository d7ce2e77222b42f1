"""The number of pods is the autoscaler's: what Pulumi does leaves it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import AppsV1Api, AutoscalingV2Api, PolicyV1Api

from tests.e2e.environment import Environment, eventually
from tests.e2e.small_stack import SmallStack

NAMESPACE = "elastic"
NAME = "tenor-stable"


@pytest.fixture
def small_stack(environment: Environment, tmp_path: Path) -> Iterator[SmallStack]:
    stack = SmallStack(tmp_path, "scaled_voice.py")
    stack.init()
    yield stack
    stack.destroy()


def test_the_autoscaler_sees_the_use_of_the_cpu_and_its_pods_survive_updates(
    environment: Environment, small_stack: SmallStack
) -> None:
    scaling: Any = AutoscalingV2Api(environment.core.api_client)
    apps: Any = AppsV1Api(environment.core.api_client)
    budgets: Any = PolicyV1Api(environment.core.api_client)

    def replicas() -> tuple[int, int]:
        deployment = apps.read_namespaced_deployment(NAME, NAMESPACE)
        return deployment.spec.replicas, deployment.status.ready_replicas or 0

    def utilization() -> int | None:
        status = scaling.read_namespaced_horizontal_pod_autoscaler(NAME, NAMESPACE).status
        (metric,) = status.current_metrics
        return metric.container_resource.current.average_utilization

    assert small_stack.up(version="1.0").startswith("exit 0")
    eventually(lambda: replicas() == (2, 2), 120, "the autoscaler has made the second pod")
    eventually(lambda: utilization() is not None, 180, "metrics-server has its figures")

    def evictable() -> int:
        return budgets.read_namespaced_pod_disruption_budget(
            NAME, NAMESPACE
        ).status.disruptions_allowed

    eventually(lambda: evictable() == 1, what="one pod may be evicted")

    # One is what a Deployment has that is not told.
    assert small_stack.preview(version="1.0").startswith("exit 0")
    assert small_stack.up("--refresh", version="1.0").startswith("exit 0")
    assert replicas() == (2, 2)
    assert small_stack.up(version="1.1").startswith("exit 0")
    assert replicas() == (2, 2)
