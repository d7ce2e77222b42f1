"""The lab, with little else on the machine that would disturb what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kubernetes.client

from infra.local import network
from tests.bench.environment import local
from tests.e2e import lab as laboratory
from tests.e2e.environment import Environment, eventually
from tests.e2e.lab import OTHER_TENANT, TENANT, Lab
from voicemesh.contract import APP_LABEL


@contextmanager
def quiet_lab(*voices: str) -> Iterator[Lab]:
    """Environment and lab, for a while without pods of other voices than these.

    Brings up what is not, and leaves down what was down.
    """
    was_up = network.hub_namespace().exists()
    if not was_up:
        local("up")
    laboratory.up()
    lab = Lab(Environment.running())
    apps: Any = kubernetes.client.AppsV1Api(lab.core.api_client)
    scaled: dict[tuple[str, str], int] = {}
    for namespace in (TENANT, OTHER_TENANT):
        for deployment in apps.list_namespaced_deployment(namespace).items:
            if deployment.spec.selector.match_labels[APP_LABEL] not in voices:
                scaled[deployment.metadata.name, namespace] = deployment.spec.replicas
    try:
        for name, namespace in scaled:
            apps.patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": 0}})
        eventually(lambda: _apps_with_pods(lab) <= {*voices}, 120, "other pods are gone")
        yield lab
    finally:
        if was_up:
            for (name, namespace), replicas in scaled.items():
                body = {"spec": {"replicas": replicas}}
                apps.patch_namespaced_deployment_scale(name, namespace, body)
        else:
            local("down")


def _apps_with_pods(lab: Lab) -> set[str]:
    """The voices that have pods, those that still end included."""
    return {
        pod.metadata.labels[APP_LABEL]
        for namespace in (TENANT, OTHER_TENANT)
        for pod in lab.core.list_namespaced_pod(namespace).items
        if pod.metadata.owner_references
    }
