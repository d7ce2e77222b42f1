"""What pods see of the nodes of a `GpuNodeGroup`: labels, taints and resources.

Kubernetes places a pod by these, the Cluster Autoscaler foresees them, and tests compare them with
what pods ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voicemesh import contract
from voicemesh.cluster.accelerators import MIG_PROFILES
from voicemesh.cluster.node_group_arguments import GpuNodeGroupArgs

NO_SCHEDULE: Final = "NoSchedule"

# Until a new node with this label offers nvidia.com/gpu, the Cluster Autoscaler knows that its
# device plugin is still starting, and does not add another node for the same pod. Divided GPUs
# never offer that resource, and a node with the label would count as starting for ever.
# https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md#gpu-node-groups
_AUTOSCALER_LABEL: Final = "k8s.amazonaws.com/accelerator"
# https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md#auto-discovery-setup
_AUTOSCALER_RESOURCE_TAG: Final = "k8s.io/cluster-autoscaler/node-template/resources/"
_DISK_PERCENT_FOR_PODS: Final = 85
"""Of a node's disk; the rest is kept from pods by the kubelet, or taken by the system."""

_EKS_EFFECTS: Final = {NO_SCHEDULE: "NO_SCHEDULE"}
"""The EKS API spells the effects otherwise than Kubernetes does."""


@dataclass(frozen=True)
class NodeTaint:
    """A taint as Kubernetes spells it."""

    key: str
    value: str
    effect: str = NO_SCHEDULE

    @property
    def for_pods(self) -> dict[str, str]:
        """As in the node's specification."""
        return {"key": self.key, "value": self.value, "effect": self.effect}

    @property
    def for_eks(self) -> dict[str, str]:
        """As in the EKS API."""
        return {**self.for_pods, "effect": _EKS_EFFECTS[self.effect]}


@dataclass(frozen=True)
class NodeView:
    """What pods see of each node of a group."""

    labels: Mapping[str, str]
    taints: tuple[NodeTaint, ...]
    gpu_resource: str
    """The extended resource that pods ask for."""

    gpu_resources: int
    """How many of it a node has."""

    disk_gib: int
    """Disk that pods can reserve on a node, at least."""

    @property
    def autoscaler_tags(self) -> dict[str, str]:
        """Tags of the node group by which the Cluster Autoscaler knows nodes that do not exist yet.

        By itself it takes them to have no disk, and the whole GPUs of their instance type, even
        where these are divided.
        """
        resources = {
            contract.GPU_RESOURCE: "0",
            self.gpu_resource: str(self.gpu_resources),
            "ephemeral-storage": f"{self.disk_gib}Gi",
        }
        return {f"{_AUTOSCALER_RESOURCE_TAG}{name}": has for name, has in resources.items()}


def node_view(args: GpuNodeGroupArgs) -> NodeView:
    """What pods will see of each node of a group with these arguments."""
    accelerator = args.accelerator_name or ""
    gpus = args.gpu_count or 0
    labels = {
        contract.ACCELERATOR_LABEL: accelerator,
        contract.NODE_TYPE_LABEL: args.node_type,
        contract.GPU_PRESENT_LABEL: "true",
    }
    if args.mig_profile is None:
        labels[_AUTOSCALER_LABEL] = accelerator
        resource, count = contract.GPU_RESOURCE, gpus
    else:
        # A name that NVIDIA's MIG Manager knows, should a cluster run it: there is nothing left for
        # it to do. https://github.com/NVIDIA/mig-parted
        labels[contract.MIG_CONFIG_LABEL] = f"all-{args.mig_profile}"
        resource = f"{contract.MIG_RESOURCE_PREFIX}{args.mig_profile}"
        count = gpus * MIG_PROFILES[accelerator][args.mig_profile]
    return NodeView(
        labels={**labels, **args.labels},
        taints=_taints(args.node_type),
        gpu_resource=resource,
        gpu_resources=count,
        disk_gib=args.root_volume_gib * _DISK_PERCENT_FOR_PODS // 100,
    )


def _taints(node_type: str) -> tuple[NodeTaint, ...]:
    # NVIDIA's charts tolerate this key.
    gpu = NodeTaint(contract.GPU_TAINT_KEY, contract.GPU_TAINT_VALUE)
    if node_type == contract.OFFLINE_NODE_TYPE:
        return (gpu, NodeTaint(contract.WORKLOAD_TAINT_KEY, contract.OFFLINE_WORKLOAD))
    return (gpu,)
