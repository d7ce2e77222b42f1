"""`ClusterAddons`: what an EKS cluster with GPUs needs inside Kubernetes."""

import pulumi

from voicemesh.cluster.addon_arguments import ClusterAddonsArgs


class ClusterAddons(pulumi.ComponentResource):
    """NVIDIA's device plugin and metrics, the load balancer controller and the node autoscaler."""

    gpu_namespace: pulumi.Output[str]
    """Namespace of the device plugin and the exporter of GPU metrics."""

    controller_namespace: pulumi.Output[str]
    """Namespace of the controllers; it exists once load balancers can be made."""

    def __init__(
        self, name: str, args: ClusterAddonsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:ClusterAddons", name, {}, opts)
        raise NotImplementedError
