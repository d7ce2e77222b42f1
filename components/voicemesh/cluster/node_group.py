"""`GpuNodeGroup`: nodes with GPUs, of one kind and for one purpose."""

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi
from pulumi_aws import ec2, eks

from voicemesh.cluster.accelerators import MIG_PROFILES
from voicemesh.cluster.launch import declare_launch_template
from voicemesh.cluster.node_group_arguments import GpuNodeGroupArgs
from voicemesh.cluster.nodes import NodeView, node_view
from voicemesh.cluster.user_data import node_user_data
from voicemesh.component import child_options

AUTOSCALED: Final = ["scalingConfig.desiredSize"]
"""What the Cluster Autoscaler owns, by its name on the wire: Pulumi does not translate it."""

# A node drains for up to 15 minutes, stops, and starts in ten; an update takes them one by one.
_TIMEOUTS: Final = pulumi.CustomTimeouts(create="60m", update="6h", delete="60m")


class GpuNodeGroup(pulumi.ComponentResource):
    """A managed node group of GPU instances that only GPU workloads may use.

    An update replaces one node at a time and stops it before its successor starts: for GPUs there
    is no spare capacity. A node that fails is replaced by EKS.

    Slices of a MIG profile are made by the node itself whenever it starts, before its kubelet: it
    takes no operator, and a node without its slices does not join. Not tried on a GPU yet.
    """

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
        view = node_view(args)
        reservation_id = self._reservation_id(name, args)
        template = declare_launch_template(
            self,
            name,
            root_volume_gib=args.root_volume_gib,
            tags=args.tags,
            user_data=_user_data(args),
            capacity_reservation_id=reservation_id,
        )
        group = self._node_group(name, args, view, template)
        self.node_group_name = group.node_group_name
        self.labels = pulumi.Output.from_input(view.labels)
        self.taints = pulumi.Output.from_input([taint.for_pods for taint in view.taints])
        self.gpu_resource = pulumi.Output.from_input(view.gpu_resource)
        self.gpu_resources_per_node = pulumi.Output.from_input(view.gpu_resources)
        self.capacity_reservation_id = pulumi.Output.from_input(reservation_id)
        self.register_outputs(
            {
                "node_group_name": self.node_group_name,
                "labels": self.labels,
                "taints": self.taints,
                "gpu_resource": self.gpu_resource,
                "gpu_resources_per_node": self.gpu_resources_per_node,
                "capacity_reservation_id": self.capacity_reservation_id,
            }
        )

    def _reservation_id(self, name: str, args: GpuNodeGroupArgs) -> pulumi.Input[str] | None:
        if args.reservation is None or args.reservation.instance_count is None:
            return args.reservation.reservation_id if args.reservation else None
        reservation = ec2.CapacityReservation(
            name,
            availability_zone=args.zones[0],
            instance_type=args.instance_types[0],
            instance_platform="Linux/UNIX",
            instance_count=args.reservation.instance_count,
            # Nothing else in the account takes the instances.
            instance_match_criteria="targeted",
            end_date_type="unlimited",
            tags={**args.tags, "Name": name},
            opts=child_options(self, pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        return reservation.id

    def _node_group(
        self, name: str, args: GpuNodeGroupArgs, view: NodeView, template: ec2.LaunchTemplate
    ) -> eks.NodeGroup:
        return eks.NodeGroup(
            name,
            cluster_name=args.cluster_name,
            node_role_arn=args.node_role_arn,
            subnet_ids=[args.subnets[zone] for zone in args.zones],
            version=args.kubernetes_version,
            ami_type="AL2023_x86_64_NVIDIA",
            capacity_type=args.capacity_type.value,
            instance_types=list(args.instance_types),
            launch_template={
                "id": template.id,
                "version": template.latest_version.apply(str),
            },
            labels=dict(view.labels),
            taints=[eks.NodeGroupTaintArgs(**taint.for_eks) for taint in view.taints],
            scaling_config={
                "min_size": args.min_size,
                "max_size": args.max_size,
                "desired_size": args.min_size,
            },
            update_config={"max_unavailable": 1, "update_strategy": "MINIMAL"},
            node_repair_config={"enabled": True},
            tags={**args.tags, **view.autoscaler_tags},
            opts=child_options(
                self,
                pulumi.ResourceOptions(ignore_changes=AUTOSCALED, custom_timeouts=_TIMEOUTS),
            ),
        )


def _user_data(args: GpuNodeGroupArgs) -> str:
    if args.mig_profile is None:
        return node_user_data()
    slices = MIG_PROFILES[args.accelerator_name or ""][args.mig_profile]
    return node_user_data(args.mig_profile, slices)
