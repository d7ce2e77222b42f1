"""`GpuCluster`: the network and the EKS cluster that GPU nodes join."""

from collections.abc import Mapping

import pulumi

from voicemesh.cluster.arguments import GpuClusterArgs


class GpuCluster(pulumi.ComponentResource):
    """A VPC and an EKS cluster with private nodes, encrypted secrets, logs, add-ons, and nodes for
    everything but speech."""

    cluster_name: pulumi.Output[str]
    """Name of the cluster; it exists once nodes can join and reach what they need."""

    kubernetes_version: pulumi.Output[str]
    """Minor version of its control plane."""

    kubeconfig: pulumi.Output[str]
    """A kubeconfig that signs in by `aws eks get-token`; it exists once the cluster runs pods."""

    endpoint: pulumi.Output[str]
    """URL of the Kubernetes API."""

    certificate_authority: pulumi.Output[str]
    """Certificate of the Kubernetes API's authority: PEM in base64."""

    region: pulumi.Output[str]
    """Region of the cluster."""

    vpc_id: pulumi.Output[str]
    """ID of the VPC."""

    private_subnets: Mapping[str, pulumi.Output[str]]
    """ID of each zone's private subnet, by the zone's name; they exist once they are routed."""

    cluster_security_group_id: pulumi.Output[str]
    """ID of the security group that EKS gives the control plane and all nodes."""

    node_role_arn: pulumi.Output[str]
    """ARN of the nodes' IAM role; it exists once the role can do what nodes need."""

    def __init__(
        self, name: str, args: GpuClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:GpuCluster", name, {}, opts)
        raise NotImplementedError
