"""Taints, tolerations, selectors and extended resources agree from node group to pod.

Nodes come from the node groups of the stack that owns the cluster, pods from the one that owns the
voices; for `prod` these are two stacks. (On the embedded environment, real nodes take part.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.preview.nodes import NODE_GROUP, Node, fits, nodes_by_group, pods_fit_exactly
from tests.preview.rules import DEPLOYMENT, mutated
from tests.stacks import CLUSTER_OF
from voicemesh.testing import Recording

H100S = {"online-reserved", "online-on-demand"}
BESIDE_THE_GATEWAY = {
    "public-gateway-ratelimit": {"cluster-system"},
    "public-gateway-redis": {"cluster-system"},
    "public-gateway-waf": {"cluster-system"},
}
EXPECTED = {
    "dev": {
        "playground-speech-stable": {"cluster-system"},
        "playground-speech-canary": {"cluster-system"},
    },
    "staging": {
        **BESIDE_THE_GATEWAY,
        "studio-narrator-stable": {"online"},
        "studio-narrator-canary": {"online"},
    },
    "prod": {
        **BESIDE_THE_GATEWAY,
        "studio-narrator-stable": H100S,
        "studio-narrator-canary": H100S,
        "studio-narrator-premium": H100S,
        "captions-live-stable": H100S,
        "library-reader-stable": {"online-slices"},
    },
}


@pytest.mark.parametrize("stack", EXPECTED)
def test_pods_fit_exactly_the_nodes_that_they_should(
    stack: str, environments: Mapping[str, Recording]
) -> None:
    cluster = environments[CLUSTER_OF.get(stack, stack)]
    assert list(pods_fit_exactly(environments[stack], cluster, EXPECTED[stack])) == []


def test_nodes_for_offline_work_take_no_voice_of_any_environment(
    environments: Mapping[str, Recording],
) -> None:
    for stack in ("staging", "prod"):
        offline = nodes_by_group(environments[CLUSTER_OF.get(stack, stack)])["offline"]
        for deployment in environments[stack].of_type(DEPLOYMENT):
            pod = deployment.inputs["spec"]["template"]["spec"]
            assert not any(fits({**pod, "nodeSelector": {}}, node) for node in offline)


Change = Callable[[dict[str, Any]], Any]


def _pod(change: Change) -> Change:
    return lambda inputs: change(inputs["spec"]["template"]["spec"])


def _resources(change: Change) -> Change:
    return _pod(lambda pod: change(pod["containers"][0]["resources"]["requests"]))


def _swap_resource(requests: dict[str, Any]) -> None:
    for name in [name for name in requests if "/" in name]:
        requests["nvidia.com/mig-2g.20gb"] = requests.pop(name)


# What goes wrong in practice, on the side of the nodes or of the pods.
MISTAKES: dict[str, tuple[str, Change]] = {
    "the pod's spelling of an effect, given to EKS": (
        NODE_GROUP,
        lambda inputs: [taint.update(effect="NoSchedule") for taint in inputs.get("taints", [])],
    ),
    "a taint's other value": (
        NODE_GROUP,
        lambda inputs: [taint.update(value="present") for taint in inputs.get("taints", [])],
    ),
    "another accelerator's label": (
        NODE_GROUP,
        lambda inputs: inputs.get("labels", {}).update(accelerator="a100"),
    ),
    "another node type's label": (
        NODE_GROUP,
        lambda inputs: inputs.get("labels", {}).update({"node-type": "offline-inference"}),
    ),
    "GPUs that are divided": (
        NODE_GROUP,
        lambda inputs: inputs.get("labels", {}).update({"nvidia.com/mig.config": "all-3g.40gb"}),
    ),
    "GPUs that are whole": (
        NODE_GROUP,
        lambda inputs: inputs.get("labels", {}).pop("nvidia.com/mig.config", None),
    ),
    "instances without GPUs": (
        NODE_GROUP,
        lambda inputs: inputs.update(instanceTypes=["m7i.2xlarge"]),
    ),
    "a missing toleration": (DEPLOYMENT, _pod(lambda pod: pod.pop("tolerations"))),
    "EKS's spelling of an effect, given to pods": (
        DEPLOYMENT,
        _pod(lambda pod: [t.update(effect="NO_SCHEDULE") for t in pod["tolerations"]]),
    ),
    "a wrong selector": (
        DEPLOYMENT,
        _pod(lambda pod: pod["nodeSelector"].update(accelerator="H100")),
    ),
    "no request for a GPU, and every taint tolerated": (
        DEPLOYMENT,
        _pod(
            lambda pod: pod.update(
                tolerations=[{"operator": "Exists"}],
                nodeSelector={},
                containers=[{"resources": {"requests": {"cpu": "1"}}}],
                initContainers=[],
            )
        ),
    ),
    "another slice": (DEPLOYMENT, _resources(_swap_resource)),
    "more GPUs than a node has": (
        DEPLOYMENT,
        _resources(lambda requests: requests.update({"nvidia.com/gpu": "16"})),
    ),
    "more memory than a node has": (
        DEPLOYMENT,
        _resources(lambda requests: requests.update(memory="254Gi")),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_on_either_side_is_seen(
    mistake: str, environments: Mapping[str, Recording]
) -> None:
    type_, change = MISTAKES[mistake]
    prod = mutated(environments["prod"], type_, change)
    cluster = mutated(environments["prod-cluster"], type_, change)
    try:
        found = list(pods_fit_exactly(prod, cluster, EXPECTED["prod"]))
    except ValueError as unknown_effect:
        found = [str(unknown_effect)]
    assert found


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "true"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "false"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations_are_read_as_kubernetes_documents_them(
    toleration: dict[str, str], tolerated: bool
) -> None:
    taint = {"key": "gpu", "value": "true", "effect": "NoSchedule"}
    node = Node(labels={}, taints=[taint], resources=Counter())
    assert fits({"containers": [], "tolerations": [toleration]}, node) is tolerated


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "rack", "operator": "In", "values": ["a"]}, False),
    ],
)
def test_affinities_are_read_as_kubernetes_documents_them(
    expression: dict[str, Any], allowed: bool
) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    node = Node(labels={"zone": "a"}, taints=[], resources=Counter())
    assert fits({"containers": [], "affinity": affinity}, node) is allowed
