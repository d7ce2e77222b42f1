"""`GpuNodeGroup`: nodes with GPUs, of one kind and for one purpose."""

from collections.abc import Mapping, Sequence

import pulumi

from voicemesh.cluster.node_group_arguments import GpuNodeGroupArgs


class GpuNodeGroup(pulumi.ComponentResource):
    """A managed node group of GPU instances that only GPU workloads may use."""

    node_group_name: pulumi.Output[str]
    """Name of the node group."""

    labels: pulumi.Output[Mapping[str, str]]
    """Labels of its nodes that the group sets."""

    taints: pulumi.Output[Sequence[Mapping[str, str]]]
    """Taints of its nodes as pods see and tolerate them: key, value and effect `NoSchedule`."""

    gpu_resource: pulumi.Output[str]
    """What its pods ask for: `nvidia.com/gpu`, or a MIG slice's resource."""

    gpu_resources_per_node: pulumi.Output[int]
    """How many of these each node has."""

    capacity_reservation_id: pulumi.Output[str | None]
    """ID of the capacity reservation; None where there is none."""

    def __init__(
        self, name: str, args: GpuNodeGroupArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:GpuNodeGroup", name, {}, opts)
        raise NotImplementedError
