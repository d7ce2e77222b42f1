"""What `GpuCluster` takes."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pulumi

from voicemesh.arguments import Faults, is_known
from voicemesh.cluster.accelerators import INSTANCE_TYPE
from voicemesh.cluster.subnets import MAX_ZONES, VPC_PREFIXES

_ZONE: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d[a-z]")
_CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_]{0,99}")
_VERSION: Final = re.compile(r"1\.\d{2}")
_IAM_ARN: Final = re.compile(r"arn:aws(-[a-z]+)*:iam::\d{12}:(role|user)/\S+")
_ENDPOINT_SERVICE: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
# https://docs.aws.amazon.com/eks/latest/userguide/service-quotas.html
_MAX_PUBLIC_RANGES: Final = 40
LOG_DAYS: Final = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192)
"""What CloudWatch accepts, up to six years."""


class NatGateways(StrEnum):
    """How many NAT gateways carry the nodes' traffic to the Internet."""

    ONE = "one"
    """One for all zones: a third of the price with three zones, and gone with its zone."""

    EACH_ZONE = "each-zone"
    """One in each zone; nodes keep the Internet when another zone fails."""


@dataclass(frozen=True)
class SystemNodes:
    """The nodes without GPUs, for everything but speech: mesh, gateway, controllers."""

    instance_types: Sequence[str] = ("m7i.xlarge",)
    """EC2 instance types (x86-64), the first tried first."""

    min_size: int = 2
    """Fewest nodes; two keep each part running while a node is replaced."""

    max_size: int = 4
    """Most nodes; between the two the Cluster Autoscaler decides."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes groups that EKS refuses or that cannot run a cluster."""
        check_instance_types(faults, f"{path}.instance_types", self.instance_types)
        faults.at_least(1, f"{path}.min_size", self.min_size)
        check_sizes(faults, path + ".", self.min_size, self.max_size)


@dataclass(frozen=True)
class GpuClusterArgs:
    """Arguments of `GpuCluster`."""

    cluster_name: str
    """Name of the EKS cluster, unique in its account and region."""

    availability_zones: Sequence[str]
    """Zones of one region, two to six; each has a public and a private subnet. A zone's place in
    the list decides its addresses: add further ones at the end."""

    administrators: Sequence[pulumi.Input[str]]
    """ARNs of the IAM roles and users that administer the cluster, such as the role by which this
    stack is deployed. Nobody else gets in, not even who creates the cluster."""

    kubernetes_version: str = "1.35"
    """Minor version of Kubernetes, under standard support (STANDARD). It is upgraded on purpose,
    one minor version at a time: when standard support ends, EKS upgrades the cluster by itself, and
    the version given here can no longer be had.
    https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html"""

    vpc_cidr: str = "10.0.0.0/16"
    """Private IPv4 range of the VPC, from /16 to /20. Fixed for the life of the cluster."""

    nat_gateways: NatGateways = NatGateways.EACH_ZONE
    """How many NAT gateways there are."""

    interface_endpoints: Sequence[str] = (
        "ecr.api",
        "ecr.dkr",
        "sts",
        "ec2",
        "eks",
        "eks-auth",
        "logs",
        "kms",
    )
    """AWS services that nodes reach without leaving the VPC, as in com.amazonaws.<region>.<name>.
    Each costs by the hour and zone; with () they are reached through NAT. S3 always has a gateway
    endpoint, which costs nothing."""

    public_access_cidrs: Sequence[str] = ()
    """Address ranges that reach the Kubernetes API from outside the VPC, such as those of CI; at
    most 40. With () only the VPC does."""

    system_nodes: SystemNodes = field(default_factory=SystemNodes)
    """The nodes without GPUs."""

    addon_versions: Mapping[str, str] = field(default_factory=dict)
    """Version of each EKS add-on, by its name, as in {"vpc-cni": "v1.20.4-eksbuild.1"}. For an
    add-on that is not named, EKS picks its default for the Kubernetes version when the add-on is
    made, and it stays until it is named here: `aws eks describe-addon-versions` lists them."""

    log_days: int = 90
    """Days for which CloudWatch keeps the control plane's logs, one of those it offers."""

    deletion_protection: bool = True
    """Whether cluster, network and key are protected: `pulumi destroy` then refuses to touch them,
    and EKS refuses to delete the cluster."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of everything that AWS can tag."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.matches(
            _CLUSTER_NAME, "cluster_name", self.cluster_name, "up to 100 letters, digits, '-', '_'"
        )
        self._check_zones(faults)
        self._check_addresses(faults)
        self._check_administrators(faults)
        faults.matches(_VERSION, "kubernetes_version", self.kubernetes_version, "as in '1.35'")
        is_choice = isinstance(self.nat_gateways, NatGateways)
        choices = ", ".join(f"NatGateways.{choice.name}" for choice in NatGateways)
        faults.require(is_choice, "nat_gateways", self.nat_gateways, choices)
        for index, service in enumerate(self.interface_endpoints):
            path = f"interface_endpoints[{index}]"
            faults.matches(_ENDPOINT_SERVICE, path, service, "a service, as in 'ecr.api'")
        faults.unique("interface_endpoints", list(self.interface_endpoints), "service")
        self.system_nodes.check(faults, "system_nodes")
        faults.require(
            self.log_days in LOG_DAYS, "log_days", self.log_days, ", ".join(map(str, LOG_DAYS))
        )
        faults.raise_any()

    @property
    def region(self) -> str:
        """The region of the zones."""
        return self.availability_zones[0][:-1]

    def _check_zones(self, faults: Faults) -> None:
        zones = list(self.availability_zones)
        faults.require(
            2 <= len(zones) <= MAX_ZONES,
            "availability_zones",
            zones,
            f"two zones, which EKS asks for, to {MAX_ZONES}",
        )
        for index, zone in enumerate(zones):
            allowed = "a zone of a region, as in 'us-east-1a'"
            faults.matches(_ZONE, f"availability_zones[{index}]", zone, allowed)
        faults.unique("availability_zones", zones, "zone")
        regions = {zone[:-1] for zone in zones}
        faults.require(len(regions) <= 1, "availability_zones", zones, "zones of one region")

    def _check_addresses(self, faults: Faults) -> None:
        vpc = _network(self.vpc_cidr)
        fits = vpc is not None and vpc.prefixlen in VPC_PREFIXES and vpc.is_private
        allowed = (
            f"a private IPv4 range from /{VPC_PREFIXES[0]} to /{VPC_PREFIXES[-1]}, "
            "as in '10.0.0.0/16'"
        )
        faults.require(fits, "vpc_cidr", self.vpc_cidr, allowed)
        for index, cidr in enumerate(self.public_access_cidrs):
            network = _network(cidr)
            faults.require(
                network is not None and network.prefixlen > 0,
                f"public_access_cidrs[{index}]",
                cidr,
                "an IPv4 range, as in '198.51.100.0/24'; not the whole Internet",
            )
        faults.unique("public_access_cidrs", list(self.public_access_cidrs), "range")
        faults.require(
            len(self.public_access_cidrs) <= _MAX_PUBLIC_RANGES,
            "public_access_cidrs",
            list(self.public_access_cidrs),
            f"at most {_MAX_PUBLIC_RANGES} ranges",
        )

    def _check_administrators(self, faults: Faults) -> None:
        arns = list(self.administrators)
        faults.require(
            bool(arns),
            "administrators",
            arns,
            "at least one IAM role or user; nobody else gets into the cluster",
        )
        allowed = "the ARN of a role or user, as in 'arn:aws:iam::123456789012:role/deploy'"
        for index, arn in enumerate(arns):
            faults.matches(_IAM_ARN, f"administrators[{index}]", arn, allowed)
        known = [arn for arn in arns if is_known(arn)]
        faults.unique("administrators", [str(arn) for arn in known], "administrator")


def check_instance_types(faults: Faults, path: str, types: Sequence[str]) -> None:
    """Notes an empty list, names that cannot be instance types, and repeated ones."""
    faults.require(bool(types), path, list(types), "at least one instance type")
    for index, instance_type in enumerate(types):
        allowed = "an EC2 instance type, as in 'p5.4xlarge'"
        faults.matches(INSTANCE_TYPE, f"{path}[{index}]", instance_type, allowed)
    faults.unique(path, list(types), "instance type")


def check_sizes(faults: Faults, prefix: str, min_size: int, max_size: int) -> None:
    """Notes a group that may grow to less than it must have."""
    faults.at_least(1, f"{prefix}max_size", max_size)
    allowed = f"at least min_size, {min_size}"
    faults.require(max_size >= min_size, f"{prefix}max_size", max_size, allowed)


def _network(cidr: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError:
        return None
