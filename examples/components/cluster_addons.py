"""Everything that a new EKS cluster lacks before it runs voices."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import ClusterAddons, ClusterAddonsArgs

cluster = pulumi.StackReference("acme/voicemesh/prod-cluster")
provider = kubernetes.Provider("cluster", kubeconfig=cluster.require_output("kubeconfig"))

addons = ClusterAddons(
    "addons",
    ClusterAddonsArgs(
        cluster_name=cluster.require_output("clusterName"),
        region="eu-central-1",
        vpc_id=cluster.require_output("vpcId"),
    ),
    pulumi.ResourceOptions(providers=[provider]),
)
