"""Kubernetes objects on the real engine and a real API server."""

from __future__ import annotations

from infra.local.adapters.kubernetes_provider.api import Api

from .engine import Stack

CONFIG_MAP = """
namespace = k8s.core.v1.Namespace("space", metadata={{"labels": {{"team": "{team}"}}}})
settings = k8s.core.v1.ConfigMap(
    "settings",
    metadata={{"namespace": namespace.metadata.name, "name": "settings"}},
    data={{"level": "{level}"}},
)
pulumi.export("namespace", namespace.metadata.name)
"""


def test_objects_are_created_kept_changed_and_destroyed(stack: Stack, api: Api) -> None:
    stack.up(CONFIG_MAP.format(team="a", level="low"))
    stack.unchanged()
    namespace = stack.outputs()["namespace"]
    stored = api.get(api.kind("v1", "ConfigMap"), namespace, "settings")
    assert stored is not None
    assert stored["data"] == {"level": "low"}
    stack.up(CONFIG_MAP.format(team="b", level="low"))
    assert stack.outputs()["namespace"] == namespace
    stack.destroy()
    assert api.get(api.kind("v1", "Namespace"), "", namespace) is None
