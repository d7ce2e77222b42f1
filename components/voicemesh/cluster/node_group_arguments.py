"""What `GpuNodeGroup` takes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import LABEL_VALUE, Faults
from voicemesh.cluster.accelerators import INSTANCES, MIG_PROFILES
from voicemesh.cluster.arguments import check_instance_types, check_sizes

NODE_TYPES: Final = (contract.ONLINE_NODE_TYPE, contract.OFFLINE_NODE_TYPE)
MIN_ROOT_VOLUME_GIB: Final = 100
_RESERVATION_ID: Final = re.compile(r"cr-[0-9a-f]{8,17}")
_LABEL_KEY: Final = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{LABEL_VALUE.pattern}")
_OWN_LABELS: Final = (contract.ACCELERATOR_LABEL, contract.NODE_TYPE_LABEL)
_OWN_DOMAINS: Final = ("kubernetes.io", "k8s.io", "amazonaws.com", "nvidia.com")
_LABELS_OF_GROUP: Final = 4
# https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateNodegroup.html
_MAX_LABELS: Final = 50


class CapacityType(StrEnum):
    """How EC2 sells the instances, as the EKS API writes it."""

    ON_DEMAND = "ON_DEMAND"
    """Kept until they are given back."""

    SPOT = "SPOT"
    """Cheaper, and taken away at two minutes' notice: for batch work only."""


@dataclass(frozen=True)
class ReservedCapacity:
    """An On-Demand Capacity Reservation, paid for whether nodes run in it or not: an existing one,
    or one that the group makes."""

    reservation_id: pulumi.Input[str] | None = None
    """ID of an existing reservation that takes targeted launches, as in cr-0123456789abcdef0.
    Conflicts with `instance_count`."""

    instance_count: int | None = None
    """Instances to reserve, of the group's instance type in its zone. Conflicts with
    `reservation_id`."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes a reservation that is both or neither."""
        given = [self.reservation_id is not None, self.instance_count is not None]
        allowed = "either reservation_id or instance_count"
        faults.require(given.count(True) == 1, path, self, allowed)
        if self.reservation_id is not None:
            allowed = "the ID of a capacity reservation, as in 'cr-0123456789abcdef0'"
            faults.matches(_RESERVATION_ID, f"{path}.reservation_id", self.reservation_id, allowed)
        if self.instance_count is not None:
            faults.at_least(1, f"{path}.instance_count", self.instance_count)


@dataclass(frozen=True)
class GpuNodeGroupArgs:
    """Arguments of `GpuNodeGroup`."""

    cluster_name: pulumi.Input[str]
    """Name of the EKS cluster; take `GpuCluster.cluster_name`, which waits for its network."""

    node_role_arn: pulumi.Input[str]
    """ARN of the nodes' IAM role."""

    subnets: Mapping[str, pulumi.Input[str]]
    """Private subnet of each zone, by the zone's name."""

    min_size: int
    """Fewest nodes; 0 lets the group disappear while nothing asks for GPUs."""

    max_size: int
    """Most nodes; between the two the Cluster Autoscaler decides. With a reservation, no more than
    it holds."""

    availability_zones: Sequence[str] = ()
    """Zones of the nodes; () for all of `subnets`. Exactly one with a reservation, which holds in
    one zone only."""

    node_type: str = contract.ONLINE_NODE_TYPE
    """What the nodes are for: `online-inference`, or `offline-inference`, which has a second taint
    that keeps everything but batch work away."""

    instance_types: Sequence[str] = ("p5.4xlarge",)
    """The first is tried first, the others are fallbacks: of the same accelerator, and with no
    fewer GPUs, since the autoscaler takes all nodes to be like the first. With SPOT, EC2 chooses by
    price and spare capacity, in no order. One only with a reservation or a MIG profile."""

    accelerator: str | None = None
    """What the label `accelerator` says, as in `h100`; by default what the instance types carry.
    Needed, with `gpus_per_node`, for types that this library does not know."""

    gpus_per_node: int | None = None
    """GPUs of the first instance type; by default what is known of it."""

    capacity_type: CapacityType = CapacityType.ON_DEMAND
    """How EC2 sells the instances. SPOT conflicts with a reservation."""

    reservation: ReservedCapacity | None = None
    """Capacity reserved for these nodes; they launch nowhere else. None takes what EC2 has."""

    mig_profile: str | None = None
    """Divides each GPU into slices of this MIG profile, as in `1g.20gb`; pods then ask for
    `nvidia.com/mig-1g.20gb`. None leaves GPUs whole."""

    kubernetes_version: pulumi.Input[str] | None = None
    """Minor version of the nodes; give `GpuCluster.kubernetes_version` to follow the cluster. By
    default the cluster's when the group is made."""

    root_volume_gib: int = 200
    """Size of the encrypted root volume in GiB, 100 at least. Instances with local NVMe keep images
    and the pods' scratch space there instead. While there are no nodes, the Cluster Autoscaler
    expects pods to have 85 % of this size, be there NVMe or not."""

    deletion_protection: bool = True
    """Whether a capacity reservation that the group makes is protected; given back, it may not be
    had again."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels of the nodes, beside those that the other arguments make; 50 in all."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the group, its instances, their volumes, and the reservation."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        check_instance_types(faults, "instance_types", self.instance_types)
        faults.at_least(0, "min_size", self.min_size)
        check_sizes(faults, "", self.min_size, self.max_size)
        faults.require(
            self.node_type in NODE_TYPES, "node_type", self.node_type, " or ".join(NODE_TYPES)
        )
        is_choice = isinstance(self.capacity_type, CapacityType)
        choices = ", ".join(f"CapacityType.{choice.name}" for choice in CapacityType)
        faults.require(is_choice, "capacity_type", self.capacity_type, choices)
        faults.at_least(MIN_ROOT_VOLUME_GIB, "root_volume_gib", self.root_volume_gib)
        self._check_zones(faults)
        self._check_gpus(faults)
        self._check_mig(faults)
        self._check_reservation(faults)
        self._check_labels(faults)
        faults.raise_any()

    @property
    def zones(self) -> tuple[str, ...]:
        """Zones in which nodes run."""
        return tuple(self.availability_zones) or tuple(self.subnets)

    @property
    def accelerator_name(self) -> str | None:
        """The accelerator: as given, or what is known of the first instance type."""
        known = INSTANCES.get(self.instance_types[0]) if self.instance_types else None
        return self.accelerator or (known.accelerator if known else None)

    @property
    def gpu_count(self) -> int | None:
        """GPUs of each node: as given, or what is known of the first instance type."""
        known = INSTANCES.get(self.instance_types[0]) if self.instance_types else None
        return self.gpus_per_node or (known.gpus if known else None)

    def _check_zones(self, faults: Faults) -> None:
        faults.require(bool(self.subnets), "subnets", dict(self.subnets), "at least one zone")
        for index, zone in enumerate(self.availability_zones):
            allowed = f"a zone of subnets: {', '.join(self.subnets)}"
            faults.require(zone in self.subnets, f"availability_zones[{index}]", zone, allowed)
        faults.unique("availability_zones", list(self.availability_zones), "zone")

    def _check_gpus(self, faults: Faults) -> None:
        if self.accelerator is not None:
            allowed = "a label's value, as in 'h100'"
            faults.matches(LABEL_VALUE, "accelerator", self.accelerator, allowed)
        if self.gpus_per_node is not None:
            faults.at_least(1, "gpus_per_node", self.gpus_per_node)
        for index, instance_type in enumerate(self.instance_types):
            self._check_instance(faults, f"instance_types[{index}]", instance_type, first=not index)

    def _check_instance(self, faults: Faults, path: str, type_: str, *, first: bool) -> None:
        known = INSTANCES.get(type_)
        if known is None:
            told = self.accelerator is not None and self.gpus_per_node is not None
            allowed = (
                f"one of {', '.join(INSTANCES)}; or any, with accelerator and gpus_per_node given"
            )
            faults.require(told, path, type_, allowed)
            return
        faults.require(
            known.accelerator == self.accelerator_name,
            path,
            type_,
            f"types with the accelerator {self.accelerator_name!r}; this one has "
            f"{known.accelerator!r}",
        )
        wanted = self.gpu_count or known.gpus
        fits = known.gpus == wanted if first else known.gpus >= wanted
        limit = f"{wanted} GPUs" if first else f"at least {wanted} GPUs, as the first"
        faults.require(fits, path, type_, f"types with {limit}; this one has {known.gpus}")

    def _check_mig(self, faults: Faults) -> None:
        if self.mig_profile is None:
            return
        profiles = MIG_PROFILES.get(self.accelerator_name or "", {})
        allowed = (
            f"a profile of {self.accelerator_name}: {', '.join(profiles)}"
            if profiles
            else f"nothing, since {self.accelerator_name} cannot be divided; "
            f"{', '.join(MIG_PROFILES)} can"
        )
        faults.require(self.mig_profile in profiles, "mig_profile", self.mig_profile, allowed)
        self._require_one_type(faults, "mig_profile")

    def _check_reservation(self, faults: Faults) -> None:
        if self.reservation is None:
            return
        self.reservation.check(faults, "reservation")
        faults.require(
            len(self.zones) == 1,
            "availability_zones",
            list(self.availability_zones),
            f"exactly one of {', '.join(self.subnets)}, since a reservation holds in one zone",
        )
        self._require_one_type(faults, "reservation")
        faults.require(
            self.capacity_type is not CapacityType.SPOT,
            "capacity_type",
            str(self.capacity_type),
            "ON_DEMAND with a reservation",
        )
        count = self.reservation.instance_count
        faults.require(
            count is None or self.max_size <= count,
            "max_size",
            self.max_size,
            f"at most reservation.instance_count, {count}: its nodes launch nowhere else",
        )

    def _require_one_type(self, faults: Faults, reason: str) -> None:
        faults.require(
            len(self.instance_types) <= 1,
            "instance_types",
            list(self.instance_types),
            f"one type only with {reason}",
        )

    def _check_labels(self, faults: Faults) -> None:
        for key, value in self.labels.items():
            path = f"labels[{key!r}]"
            faults.matches(_LABEL_KEY, path, key, "a key such as 'team' or 'example.com/team'")
            faults.matches(LABEL_VALUE, path, value, "up to 63 letters, digits, '-', '_' and '.'")
            allowed = "nothing; Kubernetes, AWS or the group itself sets this label"
            faults.require(not _belongs_to_others(key), path, value, allowed)
        room = _MAX_LABELS - _LABELS_OF_GROUP
        allowed = f"at most {room} further labels"
        faults.require(len(self.labels) <= room, "labels", len(self.labels), allowed)


def _belongs_to_others(key: str) -> bool:
    domain = key.rpartition("/")[0]
    return key in _OWN_LABELS or any(f".{domain}".endswith(f".{own}") for own in _OWN_DOMAINS)
