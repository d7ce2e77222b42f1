"""What an AWS account must grant before a cluster can be made, and whether it does.

`findings` decides, from answers that `ask_account` collects with read-only calls. GPUs are what
accounts lack most often: the quota of vCPUs for P instances is 0 in many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from voicemesh.cluster.arguments import GpuClusterArgs
from voicemesh.cluster.node_group_arguments import (
    CapacityType,
    GpuNodeGroupArgs,
    ReservedCapacity,
)

_LINUX: Final = "Linux/UNIX"
_UPDATE_NODES_PER_ZONE: Final = 2


@dataclass(frozen=True)
class Quota:
    """A quota of vCPUs that run at one time in a region, for families of instances.

    https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
    """

    code: str
    name: str


ON_DEMAND_QUOTAS: Final = {
    "p": Quota("L-417A185B", "Running On-Demand P instances"),
    "g": Quota("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "standard": Quota(
        "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"
    ),
}
SPOT_QUOTAS: Final = {
    "p": Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    "p5": Quota("L-C4BD4855", "All P5 Spot Instance Requests"),
    "g": Quota("L-3819A6DF", "All G and VT Spot Instance Requests"),
    "standard": Quota(
        "L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"
    ),
}
_STANDARD_FAMILIES: Final = frozenset("acdhimrtz")


@dataclass(frozen=True)
class PlannedNodes:
    """A node group that is to be made."""

    name: str
    instance_types: Sequence[str]
    zones: Sequence[str]
    max_size: int
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    reservation_id: str | None = None
    """An existing capacity reservation that the nodes use."""

    @staticmethod
    def of_group(name: str, args: GpuNodeGroupArgs) -> PlannedNodes:
        """A group of GPU nodes."""
        reservation = args.reservation or ReservedCapacity()
        reservation_id = reservation.reservation_id
        return PlannedNodes(
            name,
            args.instance_types,
            args.zones,
            # Reserved instances count against the quota whether they run or not.
            max(args.max_size, reservation.instance_count or 0),
            args.capacity_type,
            reservation_id if isinstance(reservation_id, str) else None,
        )

    @staticmethod
    def of_system(args: GpuClusterArgs) -> PlannedNodes:
        """The system nodes of a cluster, with those that start before others go in an update."""
        nodes, zones = args.system_nodes, args.availability_zones
        # https://docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html
        most = nodes.max_size + _UPDATE_NODES_PER_ZONE * len(zones)
        return PlannedNodes("system", nodes.instance_types, zones, most)


@dataclass(frozen=True)
class Reservation:
    """A capacity reservation as EC2 describes it."""

    state: str
    instance_type: str
    zone: str
    instance_count: int
    platform: str = _LINUX


@dataclass(frozen=True)
class Account:
    """What an account answered, for one region."""

    number: str
    region: str
    quotas: Mapping[str, float] = field(default_factory=dict)
    """vCPUs by quota code."""

    vcpus: Mapping[str, int] = field(default_factory=dict)
    """vCPUs by instance type; a type that the region does not have is missing."""

    offered: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Zones by instance type that they offer."""

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    """By ID; one that does not exist is missing."""


@dataclass(frozen=True)
class Finding:
    """One thing that the plan needs of the account."""

    subject: str
    needed: str
    had: str
    fix: str | None = None
    """What to do; None where the account has what is needed."""

    @property
    def holds(self) -> bool:
        """Whether the account has what is needed."""
        return self.fix is None

    def __str__(self) -> str:
        text = f"{self.subject}: needs {self.needed}, has {self.had}"
        return text if self.fix is None else f"{text}; {self.fix}"


def quota_of(instance_type: str, capacity_type: CapacityType) -> Quota | None:
    """The quota against which an instance counts; None where this module does not know it."""
    generation = instance_type.split(".")[0].split("-")[0]
    quotas = SPOT_QUOTAS if capacity_type is CapacityType.SPOT else ON_DEMAND_QUOTAS
    family = generation[0]
    if family in "pg":
        return quotas.get(generation[:2], quotas[family])
    return quotas["standard"] if family in _STANDARD_FAMILIES else None


def findings(plan: Sequence[PlannedNodes], account: Account) -> list[Finding]:
    """Compares what node groups need, at their largest, with what the account grants.

    Quotas hold for all that runs in the region; what other stacks run there is not counted.
    """
    return [
        *_quota_findings(plan, account),
        *_zone_findings(plan, account),
        *_reservation_findings(plan, account),
    ]


def _quota_findings(plan: Sequence[PlannedNodes], account: Account) -> Iterable[Finding]:
    needed: dict[Quota, int] = {}
    for nodes in plan:
        for quota, vcpus in _largest_by_quota(nodes, account).items():
            needed[quota] = needed.get(quota, 0) + vcpus * nodes.max_size
    for quota, vcpus in needed.items():
        if vcpus == 0:
            # None of its types exists in the region; the zones' findings say so.
            continue
        had = math.floor(account.quotas.get(quota.code, 0))
        fix = (
            "aws service-quotas request-service-quota-increase --service-code ec2 "
            f"--quota-code {quota.code} --desired-value {vcpus} --region {account.region}"
        )
        yield Finding(
            f"quota {quota.code} ({quota.name})",
            f"{vcpus} vCPUs",
            str(had),
            None if had >= vcpus else fix,
        )


def _largest_by_quota(nodes: PlannedNodes, account: Account) -> dict[Quota, int]:
    """vCPUs of the largest instance that a node may become, by the quota it counts against."""
    largest: dict[Quota, int] = {}
    for instance_type in nodes.instance_types:
        quota = quota_of(instance_type, nodes.capacity_type)
        if quota is not None:
            largest[quota] = max(largest.get(quota, 0), account.vcpus.get(instance_type, 0))
    return largest


def _zone_findings(plan: Sequence[PlannedNodes], account: Account) -> Iterable[Finding]:
    for nodes in plan:
        for instance_type in nodes.instance_types:
            offered = account.offered.get(instance_type, frozenset())
            missing = [zone for zone in nodes.zones if zone not in offered]
            where = ", ".join(sorted(offered))
            fix = (
                f"choose zones of these, or another instance type, than {', '.join(missing)}"
                if offered
                else f"choose another region than {account.region}, or another instance type"
            )
            yield Finding(
                f"nodes {nodes.name}: {instance_type}",
                f"zones {', '.join(nodes.zones)}",
                where or "none",
                fix if missing else None,
            )


def _reservation_findings(plan: Sequence[PlannedNodes], account: Account) -> Iterable[Finding]:
    for nodes in plan:
        if nodes.reservation_id is None:
            continue
        wanted = Reservation("active", nodes.instance_types[0], nodes.zones[0], nodes.max_size)
        found = account.reservations.get(nodes.reservation_id)
        yield Finding(
            f"nodes {nodes.name}: reservation {nodes.reservation_id}",
            _described(wanted),
            "none of this ID" if found is None else _described(found),
            _reservation_fix(wanted, found, account.region),
        )


def _described(reservation: Reservation) -> str:
    return (
        f"{reservation.instance_count} {reservation.instance_type} for {reservation.platform} "
        f"in {reservation.zone} ({reservation.state})"
    )


def _reservation_fix(wanted: Reservation, found: Reservation | None, region: str) -> str | None:
    if found is None:
        return f"name one of region {region}, or let the group reserve: instanceCount"
    if found.state != wanted.state:
        return "it cannot be revived: make another, or let the group reserve: instanceCount"
    for what in ("instance_type", "zone", "platform"):
        if getattr(found, what) != getattr(wanted, what):
            return f"make the group's {what.replace('_', ' ')} that of the reservation"
    if found.instance_count < wanted.instance_count:
        return f"raise its instance count to {wanted.instance_count}, or lower maxSize"
    return None


def ask_account(plan: Sequence[PlannedNodes], region: str, client: Callable[[str], Any]) -> Account:
    """Asks AWS what `findings` has to know; changes nothing.

    Args:
        client: makes the boto3 client of a service, for the region.
    """
    ec2 = client("ec2")
    types = sorted({t for nodes in plan for t in nodes.instance_types})
    codes = {
        quota.code
        for nodes in plan
        for instance_type in nodes.instance_types
        if (quota := quota_of(instance_type, nodes.capacity_type)) is not None
    }
    reservations = sorted({n.reservation_id for n in plan if n.reservation_id is not None})
    offered = _offered(ec2, types)
    return Account(
        number=client("sts").get_caller_identity()["Account"],
        region=region,
        quotas=applied_quotas(client("service-quotas"), sorted(codes)),
        vcpus=_vcpus(ec2, sorted(offered)),
        offered=offered,
        reservations=_reservations(ec2, reservations),
    )


def applied_quotas(client: Any, codes: Sequence[str]) -> dict[str, float]:
    """What the account may run, by quota code, asked with a client of service-quotas."""
    return {code: _quota(client, code) for code in codes}


def _quota(client: Any, code: str) -> float:
    wanted = {"ServiceCode": "ec2", "QuotaCode": code}
    try:
        answer = client.get_service_quota(**wanted)
    except client.exceptions.NoSuchResourceException:
        # Nobody ever asked for another value than every account has.
        answer = client.get_aws_default_service_quota(**wanted)
    return answer["Quota"]["Value"]


def _offered(ec2: Any, types: Sequence[str]) -> dict[str, frozenset[str]]:
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": list(types)}],
    )
    offers = [offer for page in pages for offer in page["InstanceTypeOfferings"]]
    return {
        instance_type: frozenset(
            offer["Location"] for offer in offers if offer["InstanceType"] == instance_type
        )
        for instance_type in types
        if any(offer["InstanceType"] == instance_type for offer in offers)
    }


def _vcpus(ec2: Any, types: Sequence[str]) -> dict[str, int]:
    if not types:
        return {}
    described = ec2.describe_instance_types(InstanceTypes=list(types))["InstanceTypes"]
    return {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in described}


def _reservations(ec2: Any, ids: Sequence[str]) -> dict[str, Reservation]:
    if not ids:
        return {}
    # Asked for by ID, one that does not exist would fail the call and hide the others.
    pages = ec2.get_paginator("describe_capacity_reservations").paginate()
    found = [each for page in pages for each in page["CapacityReservations"]]
    return {
        each["CapacityReservationId"]: Reservation(
            each["State"],
            each["InstanceType"],
            each["AvailabilityZone"],
            each["TotalInstanceCount"],
            each["InstancePlatform"],
        )
        for each in found
        if each["CapacityReservationId"] in ids
    }
