"""Two nodes with one H100 each, whose capacity is reserved, and up to six without a reservation for
batch work, whose GPUs are divided into slices. The Cluster Autoscaler decides how many there are.
"""

import pulumi
import pulumi_aws as aws

from voicemesh import GpuNodeGroup, GpuNodeGroupArgs, ReservedCapacity

in_frankfurt = pulumi.ResourceOptions(providers=[aws.Provider("frankfurt", region="eu-central-1")])
cluster = pulumi.StackReference("acme/voicemesh/prod-cluster")
subnets = {
    zone: cluster.require_output("privateSubnets").apply(lambda ids, zone=zone: ids[zone])
    for zone in ("eu-central-1a", "eu-central-1b")
}

online = GpuNodeGroup(
    "online",
    GpuNodeGroupArgs(
        cluster_name=cluster.require_output("clusterName"),
        node_role_arn=cluster.require_output("nodeRoleArn"),
        subnets=subnets,
        availability_zones=["eu-central-1a"],
        reservation=ReservedCapacity(instance_count=2),
        min_size=2,
        max_size=2,
    ),
    in_frankfurt,
)

offline = GpuNodeGroup(
    "offline",
    GpuNodeGroupArgs(
        cluster_name=cluster.require_output("clusterName"),
        node_role_arn=cluster.require_output("nodeRoleArn"),
        subnets=subnets,
        node_type="offline-inference",
        mig_profile="1g.20gb",
        min_size=0,
        max_size=6,
    ),
    in_frankfurt,
)
