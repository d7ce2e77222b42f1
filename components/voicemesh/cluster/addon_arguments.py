"""What `ClusterAddons` takes."""

import re
from dataclasses import dataclass, field, fields
from typing import Final

import pulumi

from voicemesh.arguments import Faults

_CHART_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")


@dataclass(frozen=True)
class AddonVersions:
    """Versions of the charts. Read a chart's notes before its version is raised."""

    nvidia_device_plugin: str = "0.18.0"
    """Chart `nvidia-device-plugin` of https://nvidia.github.io/k8s-device-plugin"""

    dcgm_exporter: str = "4.8.3"
    """Chart `dcgm-exporter` of https://nvidia.github.io/dcgm-exporter/helm-charts"""

    load_balancer_controller: str = "1.17.1"
    """Chart `aws-load-balancer-controller` of https://aws.github.io/eks-charts"""

    cluster_autoscaler: str = "9.56.0"
    """Chart `cluster-autoscaler` of https://kubernetes.github.io/autoscaler; its minor version of
    the autoscaler should be Kubernetes' own."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what is no version of a chart, such as a range, which would change by itself."""
        for part in fields(self):
            value = getattr(self, part.name)
            allowed = "one version, as in '1.2.3'"
            faults.matches(_CHART_VERSION, f"{path}.{part.name}", value, allowed)


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
        faults = Faults.of(self)
        self.versions.check(faults, "versions")
        faults.raise_any()
