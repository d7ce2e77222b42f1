"""`ClusterAddons`: what an EKS cluster with GPUs needs inside Kubernetes."""

from typing import Any, Final

import pulumi
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from voicemesh import contract
from voicemesh.cluster.addon_arguments import ClusterAddonsArgs
from voicemesh.component import after, child_options
from voicemesh.namespaces import declare_namespace

NVIDIA_DEVICE_PLUGIN: Final = "nvidia-device-plugin"
DCGM_EXPORTER: Final = "dcgm-exporter"
REPOSITORIES: Final = {
    NVIDIA_DEVICE_PLUGIN: "https://nvidia.github.io/k8s-device-plugin",
    DCGM_EXPORTER: "https://nvidia.github.io/dcgm-exporter/helm-charts",
    contract.LOAD_BALANCER_CONTROLLER: "https://aws.github.io/eks-charts",
    contract.CLUSTER_AUTOSCALER: "https://kubernetes.github.io/autoscaler",
}
"""Where each chart comes from."""

_NAMESPACES: Final = {
    NVIDIA_DEVICE_PLUGIN: contract.GPU_SYSTEM_NAMESPACE,
    DCGM_EXPORTER: contract.GPU_SYSTEM_NAMESPACE,
    contract.LOAD_BALANCER_CONTROLLER: contract.CONTROLLER_NAMESPACE,
    contract.CLUSTER_AUTOSCALER: contract.CONTROLLER_NAMESPACE,
}

_TIMEOUT_SECONDS: Final = 600
# Offline nodes have a second taint, which the charts' own tolerations do not cover.
_ON_EVERY_NODE: Final = [{"operator": "Exists"}]
_ON_GPU_NODES: Final = {contract.GPU_PRESENT_LABEL: "true"}
_RESTRICTED_CONTAINER: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_NOBODY: Final = 65534


class ClusterAddons(pulumi.ComponentResource):
    """NVIDIA's device plugin and metrics, the load balancer controller and the node autoscaler.

    What EKS offers as add-ons comes with `GpuCluster`; so do the IAM roles that the two
    controllers take by Pod Identity.

    Unrendered: none of the four charts can be fetched where this library is tested. What they are
    given is tested, what they make of it is not.
    """

    gpu_namespace: pulumi.Output[str]
    """Namespace of the device plugin and the exporter of GPU metrics."""

    controller_namespace: pulumi.Output[str]
    """Namespace of the controllers; it exists once load balancers can be made."""

    def __init__(
        self, name: str, args: ClusterAddonsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:ClusterAddons", name, {}, opts)
        # Both read the kubelet's directories on the node, and the GPUs themselves.
        gpu = declare_namespace(
            f"{name}-gpu", contract.GPU_SYSTEM_NAMESPACE, "privileged", child_options(self)
        )
        controllers = declare_namespace(
            f"{name}-controllers", contract.CONTROLLER_NAMESPACE, "restricted", child_options(self)
        )
        versions = args.versions
        plugin = self._release(
            name, NVIDIA_DEVICE_PLUGIN, versions.nvidia_device_plugin, device_plugin_values(), gpu
        )
        metrics = self._release(
            name, DCGM_EXPORTER, versions.dcgm_exporter, dcgm_exporter_values(), gpu
        )
        balancing = self._release(
            name,
            contract.LOAD_BALANCER_CONTROLLER,
            versions.load_balancer_controller,
            load_balancer_values(args),
            controllers,
        )
        self._release(
            name,
            contract.CLUSTER_AUTOSCALER,
            versions.cluster_autoscaler,
            autoscaler_values(args),
            controllers,
        )
        self.gpu_namespace = after(contract.GPU_SYSTEM_NAMESPACE, plugin, metrics)
        self.controller_namespace = after(contract.CONTROLLER_NAMESPACE, balancing)
        self.register_outputs(
            {
                "gpu_namespace": self.gpu_namespace,
                "controller_namespace": self.controller_namespace,
            }
        )

    def _release(
        self,
        name: str,
        chart: str,
        version: str,
        values: dict[str, Any],
        namespace: Namespace,
    ) -> Release:
        return Release(
            f"{name}-{chart}",
            name=chart,
            chart=chart,
            version=version,
            repository_opts=RepositoryOptsArgs(repo=REPOSITORIES[chart]),
            namespace=_NAMESPACES[chart],
            values=values,
            timeout=_TIMEOUT_SECONDS,
            opts=child_options(self, pulumi.ResourceOptions(depends_on=[namespace])),
        )


def device_plugin_values() -> dict[str, Any]:
    """Values of `nvidia-device-plugin`: whole GPUs are nvidia.com/gpu, slices nvidia.com/mig-….

    https://github.com/NVIDIA/k8s-device-plugin#deployment-via-helm
    """
    return {
        # Without slices on a node, as with "none".
        "migStrategy": "mixed",
        # Where it runs, the chart decides by the label that all GPU nodes have.
        "tolerations": _ON_EVERY_NODE,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }


def dcgm_exporter_values() -> dict[str, Any]:
    """Values of `dcgm-exporter`, which keeps its default counters; Prometheus finds the pods by
    their annotations, since its operator may be absent.

    https://github.com/NVIDIA/dcgm-exporter/tree/main/deployment
    """
    return {
        "serviceMonitor": {"enabled": False},
        "podAnnotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9400"},
        "nodeSelector": _ON_GPU_NODES,
        "tolerations": _ON_EVERY_NODE,
        # DCGM keeps a history of each counter.
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
    }


def load_balancer_values(args: ClusterAddonsArgs) -> dict[str, Any]:
    """Values of `aws-load-balancer-controller`, for Services that ask for it by annotation or
    class. Its webhook for all Services is off: while the controller restarts, it would keep every
    Service of the cluster from being made.

    https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/deploy/configurations/
    """
    return {
        "clusterName": args.cluster_name,
        "region": args.region,
        "vpcId": args.vpc_id,
        "replicaCount": 2,
        "podDisruptionBudget": {"maxUnavailable": 1},
        "serviceAccount": {"name": contract.LOAD_BALANCER_CONTROLLER},
        "enableServiceMutatorWebhook": False,
        "createIngressClassResource": False,
        "ingressClassParams": {"create": False},
        "enableShield": False,
        "enableWaf": False,
        "enableWafv2": False,
        "securityContext": _RESTRICTED_CONTAINER,
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
    }


def autoscaler_values(args: ClusterAddonsArgs) -> dict[str, Any]:
    """Values of `cluster-autoscaler`, which finds the node groups by their cluster's name.

    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    """
    return {
        "cloudProvider": "aws",
        "awsRegion": args.region,
        "autoDiscovery": {"clusterName": args.cluster_name},
        "fullnameOverride": contract.CLUSTER_AUTOSCALER,
        "replicaCount": 2,
        "rbac": {"serviceAccount": {"name": contract.CLUSTER_AUTOSCALER}},
        "extraArgs": {
            # A GPU node that a smaller pod would leave half empty is not started for it.
            "expander": "least-waste",
            "balance-similar-node-groups": True,
            # Weights and scratch space are copies: they do not keep a node.
            "skip-nodes-with-local-storage": False,
            # Only a node whose GPUs nobody asked for is given back, since whoever drains one cuts
            # its streams; and late, since it takes about ten minutes to have it again. 0 would
            # keep idle nodes as well.
            "scale-down-gpu-utilization-threshold": "0.01",
            "scale-down-unneeded-time": "20m",
            "scale-down-delay-after-add": "20m",
            # A p5 may take longer than the default of 15 minutes where capacity is scarce.
            "max-node-provision-time": "30m",
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
            "fsGroup": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containerSecurityContext": _RESTRICTED_CONTAINER,
        "podDisruptionBudget": {"maxUnavailable": 1},
        "priorityClassName": "system-cluster-critical",
        "resources": {"requests": {"cpu": "100m", "memory": "600Mi"}},
    }
