"""The nodes that an environment's node groups make, and which pods fit onto them.

Nodes are derived from what is sent to the EKS API, in its spelling; pods are judged as Kubernetes'
scheduler does. https://kubernetes.io/docs/concepts/scheduling-eviction/
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voicemesh.testing import Recording, Registration

NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"

# https://docs.aws.amazon.com/eks/latest/APIReference/API_Taint.html
EFFECTS = {
    "NO_SCHEDULE": "NoSchedule",
    "NO_EXECUTE": "NoExecute",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
}

# GPUs, vCPUs and GiB: https://docs.aws.amazon.com/ec2/latest/instancetypes/
INSTANCES = {
    "m7i.xlarge": (0, 4, 16),
    "m7i.2xlarge": (0, 8, 32),
    "m7a.2xlarge": (0, 8, 32),
    "g6e.xlarge": (1, 4, 32),
    "g6e.2xlarge": (1, 8, 64),
    "g6e.4xlarge": (1, 16, 128),
    "p5.4xlarge": (1, 16, 256),
    "p5.48xlarge": (8, 192, 2048),
}

# https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-mig-profiles.html
SLICES = {"1g.10gb": 7, "1g.20gb": 4, "2g.20gb": 3, "3g.40gb": 2, "7g.80gb": 1}

# What the kubelet, the system and the DaemonSets of a node keep for themselves.
_KEPT_CORES = 0.75
_KEPT_GIB = 3


@dataclass(frozen=True)
class Node:
    """One kind of node that a group may add."""

    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, str]]
    resources: Counter[str]


def nodes_by_group(recording: Recording) -> dict[str, list[Node]]:
    """The kinds of node that each group may add: one for each of its instance types.

    Raises:
        ValueError: EKS knows no such effect of a taint.
    """
    return {
        group.name: [_node(recording, group, type_) for type_ in group.inputs["instanceTypes"]]
        for group in recording.of_type(NODE_GROUP)
    }


def _node(recording: Recording, group: Registration, instance_type: str) -> Node:
    gpus, cores, gib = INSTANCES[instance_type]
    labels = group.inputs.get("labels", {})
    resources = Counter(
        {"cpu": round((cores - _KEPT_CORES) * 1000), "memory": (gib - _KEPT_GIB) << 10}
    )
    profile = _mig_profile(labels)
    if profile is not None:
        resources[f"nvidia.com/mig-{profile}"] = gpus * SLICES[profile]
    elif gpus:
        resources["nvidia.com/gpu"] = gpus
    taints = [_as_pods_see_it(taint) for taint in group.inputs.get("taints", [])]
    return Node(labels, taints, resources)


def _mig_profile(labels: Mapping[str, str]) -> str | None:
    found = re.fullmatch(r"all-(.+)", labels.get("nvidia.com/mig.config", ""))
    return found.group(1) if found else None


def _as_pods_see_it(taint: Mapping[str, str]) -> dict[str, str]:
    if taint["effect"] not in EFFECTS:
        raise ValueError(f"EKS knows no effect {taint['effect']!r}, but {', '.join(EFFECTS)}")
    return {**taint, "effect": EFFECTS[taint["effect"]]}


def fits(pod: Mapping[str, Any], node: Node) -> bool:
    """Whether the scheduler would put a pod on an empty node."""
    needs = _needs(pod)
    return (
        pod.get("nodeSelector", {}).items() <= node.labels.items()
        and _affinity_allows(pod.get("affinity", {}), node.labels)
        and all(_tolerates(pod, taint) for taint in node.taints)
        and all(amount <= node.resources[name] for name, amount in needs.items())
    )


def _tolerates(pod: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if taint["effect"] == "PreferNoSchedule":
        return True
    return any(_matches(toleration, taint) for toleration in pod.get("tolerations", []))


def _matches(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    if toleration.get("effect", taint["effect"]) != taint["effect"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key", taint["key"]) == taint["key"]
    return (toleration.get("key"), toleration.get("value", "")) == (
        taint["key"],
        taint.get("value", ""),
    )


def _affinity_allows(affinity: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    required = affinity.get("nodeAffinity", {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is None:
        return True
    return any(
        all(_expression(expression, labels) for expression in term.get("matchExpressions", []))
        for term in required["nodeSelectorTerms"]
    )


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", [])
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[expression["operator"]]


def _needs(pod: Mapping[str, Any]) -> Counter[str]:
    """What a pod requests: its containers together, or its largest init container."""
    together: Counter[str] = Counter()
    for container in pod["containers"]:
        together.update(_requests(container))
    for container in pod.get("initContainers", []):
        together |= _requests(container)
    together.pop("ephemeral-storage", None)
    return together


def _requests(container: Mapping[str, Any]) -> Counter[str]:
    requests = container.get("resources", {}).get("requests", {})
    return Counter({name: _amount(name, quantity) for name, quantity in requests.items()})


def _amount(name: str, quantity: str) -> int:
    """Millicores of CPU, MiB of memory and storage, and counts of all else."""
    if name == "cpu":
        return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000
    if name in ("memory", "ephemeral-storage"):
        return int(quantity[:-2]) * (1024 if quantity.endswith("Gi") else 1)
    return int(quantity)


def pods_fit_exactly(
    recording: Recording, cluster: Recording, expected: Mapping[str, set[str]]
) -> Iterator[str]:
    """Which Deployments' pods fit other groups of nodes than those expected.

    Args:
        recording: what declares the pods.
        cluster: what declares the nodes.
        expected: names of groups by the Deployment's name. A group counts as fitting if every kind
            of its nodes does, and as not fitting if none does.
    """
    groups = nodes_by_group(cluster)
    pods = {
        deployment.name: deployment.inputs["spec"]["template"]["spec"]
        for deployment in recording.of_type("kubernetes:apps/v1:Deployment")
    }
    if pods.keys() != expected.keys():
        yield f"expected are {sorted(expected)}, there are {sorted(pods)}"
    for name, pod in pods.items():
        for group, nodes in groups.items():
            wanted = group in expected.get(name, set())
            if any(fits(pod, node) is not wanted for node in nodes):
                yield f"{name} {'does not fit' if wanted else 'fits'} {group}"
