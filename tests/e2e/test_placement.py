"""What `pulumi up` made is where it belongs: tree, nodes, sidecars, quota."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import ApiException

from infra.local import images, stack
from tests.e2e.environment import NAMESPACE, Environment, eventually, is_ready
from voicemesh.contract import GPU_RESOURCE, GPU_TAINT_KEY

_IMAGE = images.reference("pause")


def test_the_exported_stack_shows_the_components_as_a_tree(environment: Environment) -> None:
    exported = json.loads(stack.pulumi("stack", "export", *stack.SELECTED).stdout)
    resources = exported["deployment"]["resources"]
    types = {resource["urn"]: resource["type"] for resource in resources}
    components = {
        kind.removeprefix("voicemesh:index:") for kind in types.values() if "voicemesh:" in kind
    }
    assert components >= {
        "IstioMesh",
        "PublicGateway",
        "TenantNamespace",
        "TtsVoiceService",
        "VoiceStorage",
    }
    roots = ("pulumi:pulumi:Stack", "pulumi:providers:", "voicemesh:index:")
    astray = [
        resource["urn"]
        for resource in resources
        if not resource["type"].startswith(roots)
        and not types.get(resource.get("parent", ""), "").startswith(
            ("voicemesh:index:", "kubernetes:", "aws:", "random:")
        )
    ]
    assert not astray, f"these have no component as parent: {astray}"


def test_three_nodes_are_ready_and_advertise_their_gpus(environment: Environment) -> None:
    nodes = {node.metadata.name: node for node in environment.core.list_node().items}
    assert set(nodes) == {"system", "online", "offline"}
    assert all(is_ready(node) for node in nodes.values())
    gpus = {name: node.status.allocatable.get(GPU_RESOURCE, "0") for name, node in nodes.items()}
    assert gpus == {"system": "0", "online": "8", "offline": "8"}


def test_speech_pods_have_sidecars_and_run_on_the_online_node_only(
    environment: Environment,
) -> None:
    pods = environment.speech_pods()
    assert len(pods) == 3
    for pod in pods:
        containers = [c.name for c in pod.spec.containers + (pod.spec.init_containers or [])]
        assert "istio-proxy" in containers
        assert pod.spec.node_name == "online"


@pytest.fixture
def bare_pod(environment: Environment) -> Iterator[Any]:
    """Makes pods in `NAMESPACE` that satisfy Pod Security `restricted`, and deletes them."""
    made: list[str] = []

    def make(**spec: Any) -> str:
        name = f"probe-{uuid.uuid4().hex[:8]}"
        environment.core.create_namespaced_pod(NAMESPACE, pod_manifest(name, **spec))
        made.append(name)
        return name

    yield make
    for name in made:
        environment.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)


def pod_manifest(name: str, gpus: int = 0, **spec: Any) -> dict[str, Any]:
    resources = {GPU_RESOURCE: str(gpus)} if gpus else {}
    return {
        "metadata": {"name": name, "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": _IMAGE,
                    "resources": {"limits": resources} if resources else {},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
            **spec,
        },
    }


_ON_ONLINE = {"nodeSelector": {"node-type": "online-inference"}}
_TOLERATION = {"key": GPU_TAINT_KEY, "operator": "Exists", "effect": "NoSchedule"}


def test_a_pod_without_toleration_stays_off_gpu_nodes(
    environment: Environment, bare_pod: Any
) -> None:
    name = bare_pod(**_ON_ONLINE)

    def refusal() -> str:
        pod = environment.core.read_namespaced_pod(name, NAMESPACE)
        return next(
            (c.message for c in pod.status.conditions or [] if c.reason == "Unschedulable"), ""
        )

    message = eventually(refusal, what="the scheduler's verdict")
    assert "untolerated taint" in message


def test_the_same_pod_with_the_toleration_is_placed_on_a_gpu_node(
    environment: Environment, bare_pod: Any
) -> None:
    name = bare_pod(tolerations=[_TOLERATION], **_ON_ONLINE)
    node = eventually(
        lambda: environment.core.read_namespaced_pod(name, NAMESPACE).spec.node_name,
        what="the pod is scheduled",
    )
    assert node == "online"


@pytest.mark.parametrize(("gpus", "refused"), [(1, False), (5, True)])
def test_the_quota_refuses_more_gpus_than_the_tenant_has(
    environment: Environment, gpus: int, refused: bool
) -> None:
    def create() -> None:
        environment.core.create_namespaced_pod(
            NAMESPACE, pod_manifest(f"quota-{gpus}", gpus=gpus), dry_run="All"
        )

    if not refused:
        create()
        return
    with pytest.raises(ApiException) as error:
        create()
    assert error.value.status == 403
    message = json.loads(error.value.body or "{}")["message"]
    assert "exceeded quota" in message
    assert f"requests.{GPU_RESOURCE}=5" in message
