"""A private cluster in three zones. Its API endpoint can be reached from the VPC and from CI."""

import pulumi
import pulumi_aws as aws

from voicemesh import GpuCluster, GpuClusterArgs

in_frankfurt = pulumi.ResourceOptions(providers=[aws.Provider("frankfurt", region="eu-central-1")])

cluster = GpuCluster(
    "cluster",
    GpuClusterArgs(
        cluster_name="voices",
        availability_zones=["eu-central-1a", "eu-central-1b", "eu-central-1c"],
        administrators=["arn:aws:iam::123456789012:role/deploy"],
        public_access_cidrs=["198.51.100.0/24"],
    ),
    in_frankfurt,
)

pulumi.export("kubeconfig", cluster.kubeconfig)
