"""What `ClusterAddons` takes."""

from dataclasses import dataclass, field

import pulumi

from voicemesh.arguments import Faults


@dataclass(frozen=True)
class AddonVersions:
    """Versions of the charts. Raise them on purpose: read the chart's notes first."""

    nvidia_device_plugin: str = "0.18.0"
    """Chart `nvidia-device-plugin` of https://nvidia.github.io/k8s-device-plugin"""

    dcgm_exporter: str = "4.6.0"
    """Chart `dcgm-exporter` of https://nvidia.github.io/dcgm-exporter/helm-charts"""

    load_balancer_controller: str = "1.14.0"
    """Chart `aws-load-balancer-controller` of https://aws.github.io/eks-charts"""

    cluster_autoscaler: str = "9.52.1"
    """Chart `cluster-autoscaler` of https://kubernetes.github.io/autoscaler"""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what is no version of a chart."""


@dataclass(frozen=True)
class ClusterAddonsArgs:
    """Arguments of `ClusterAddons`."""

    cluster_name: pulumi.Input[str]
    """Name of the EKS cluster."""

    region: pulumi.Input[str]
    """Region of the cluster; pods cannot ask the instance metadata for it."""

    vpc_id: pulumi.Input[str]
    """ID of the cluster's VPC."""

    versions: AddonVersions = field(default_factory=AddonVersions)
    """Versions of the charts."""

    def __post_init__(self) -> None:
        faults = Faults("ClusterAddons")
        self.versions.check(faults, "versions")
        faults.raise_any()
