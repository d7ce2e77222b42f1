"""Clusters, node groups and their charts refuse at construction what AWS would refuse later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
import pytest

from voicemesh import (
    AddonVersions,
    ArgumentsError,
    CapacityType,
    ClusterAddonsArgs,
    GpuClusterArgs,
    GpuNodeGroupArgs,
    ReservedCapacity,
    SystemNodes,
)

DEPLOY = "arn:aws:iam::123456789012:role/deploy"
CLUSTER = GpuClusterArgs("prod", ["us-east-1a", "us-east-1b"], [DEPLOY])
NODES = GpuNodeGroupArgs(
    cluster_name="prod",
    node_role_arn="arn:aws:iam::123456789012:role/node",
    subnets={"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"},
    min_size=1,
    max_size=4,
)
RESERVED = {
    "availability_zones": ["us-east-1a"],
    "reservation": ReservedCapacity(instance_count=4),
}
CHARTS = ClusterAddonsArgs("prod", "us-east-1", "vpc-1")

REFUSALS: list[tuple[Any, dict[str, Any], str]] = [
    (CLUSTER, {"cluster_name": "-prod"}, "cluster_name is '-prod'"),
    (CLUSTER, {"availability_zones": ["us-east-1a"]}, "two zones, which EKS asks for, to 6"),
    (CLUSTER, {"availability_zones": ["us-east-1a", "us-east-1"]}, "availability_zones[1]"),
    (CLUSTER, {"availability_zones": ["us-east-1a", "us-west-2a"]}, "zones of one region"),
    (CLUSTER, {"availability_zones": ["us-east-1a"] * 2}, "allowed: each zone once"),
    (CLUSTER, {"administrators": []}, "nobody else gets into the cluster"),
    (CLUSTER, {"administrators": ["deploy"]}, "administrators[0] is 'deploy'"),
    (CLUSTER, {"administrators": [DEPLOY, DEPLOY]}, "allowed: each administrator once"),
    (CLUSTER, {"kubernetes_version": "1.35.2"}, "kubernetes_version is '1.35.2'"),
    (CLUSTER, {"vpc_cidr": "10.0.0.0/8"}, "a private IPv4 range from /16 to /20"),
    (CLUSTER, {"vpc_cidr": "10.0.0.0/24"}, "vpc_cidr is '10.0.0.0/24'"),
    (CLUSTER, {"vpc_cidr": "8.8.0.0/16"}, "vpc_cidr is '8.8.0.0/16'"),
    (CLUSTER, {"vpc_cidr": "10.0.1.0/16"}, "vpc_cidr is '10.0.1.0/16'"),
    (CLUSTER, {"public_access_cidrs": ["0.0.0.0/0"]}, "not the whole Internet"),
    (CLUSTER, {"public_access_cidrs": ["198.51.100.1/24"]}, "public_access_cidrs[0]"),
    (CLUSTER, {"public_access_cidrs": [f"198.51.100.{n}/32" for n in range(41)]}, "at most 40"),
    (CLUSTER, {"nat_gateways": "one"}, "allowed: NatGateways.ONE, NatGateways.EACH_ZONE"),
    (CLUSTER, {"interface_endpoints": ["com/ec2"]}, "interface_endpoints[0] is 'com/ec2'"),
    (CLUSTER, {"interface_endpoints": ["ec2", "ec2"]}, "allowed: each service once"),
    (CLUSTER, {"log_days": 10}, "log_days is 10; allowed: 1, 3, 5, 7, 14"),
    (CLUSTER, {"system_nodes": SystemNodes(min_size=5)}, "system_nodes.max_size is 4"),
    (CLUSTER, {"system_nodes": SystemNodes(min_size=0)}, "system_nodes.min_size is 0"),
    (CLUSTER, {"system_nodes": SystemNodes(instance_types=[])}, "at least one instance type"),
    (NODES, {"min_size": 5}, "max_size is 4; allowed: at least min_size, 5"),
    (NODES, {"min_size": 0, "max_size": 0}, "max_size is 0; allowed: a number ≥ 1"),
    (NODES, {"node_type": "offline"}, "allowed: online-inference or offline-inference"),
    (NODES, {"availability_zones": ["us-east-1c"]}, "a zone of subnets: us-east-1a, us-east-1b"),
    (NODES, {"subnets": {}}, "subnets is {}; allowed: at least one zone"),
    (NODES, {"instance_types": []}, "at least one instance type"),
    (NODES, {"instance_types": ["p5.4xlarge"] * 2}, "allowed: each instance type once"),
    (NODES, {"instance_types": ["p7.48xlarge"]}, "with accelerator and gpus_per_node given"),
    (
        NODES,
        {"instance_types": ["p5.4xlarge", "g6e.xlarge"]},
        "instance_types[1] is 'g6e.xlarge'; allowed: types with the accelerator 'h100'; "
        "this one has 'l40s'",
    ),
    (
        NODES,
        {"instance_types": ["p5.48xlarge", "p5.4xlarge"]},
        "at least 8 GPUs, as the first; this one has 1",
    ),
    (NODES, {"accelerator": "h200"}, "types with the accelerator 'h200'; this one has 'h100'"),
    (NODES, {"gpus_per_node": 8}, "types with 8 GPUs; this one has 1"),
    (
        NODES,
        {"mig_profile": "1g.5gb"},
        "a profile of h100: 1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb",
    ),
    (
        NODES,
        {"mig_profile": "1g.10gb", "instance_types": ["g6e.xlarge"]},
        "nothing, since l40s cannot be divided; h100, h200, b200 can",
    ),
    (
        NODES,
        {"mig_profile": "1g.20gb", "instance_types": ["p5.4xlarge", "p5.48xlarge"]},
        "one type only with mig_profile",
    ),
    (NODES, {"reservation": RESERVED["reservation"]}, "exactly one of us-east-1a, us-east-1b"),
    (
        NODES,
        {**RESERVED, "availability_zones": ["us-east-1a", "us-east-1b"]},
        "since a reservation holds in one zone",
    ),
    (
        NODES,
        {**RESERVED, "instance_types": ["p5.4xlarge", "p5.48xlarge"]},
        "one type only with reservation",
    ),
    (NODES, {**RESERVED, "capacity_type": CapacityType.SPOT}, "ON_DEMAND with a reservation"),
    (NODES, {**RESERVED, "max_size": 5}, "at most reservation.instance_count, 4"),
    (NODES, {**RESERVED, "reservation": ReservedCapacity()}, "either reservation_id or"),
    (
        NODES,
        {**RESERVED, "reservation": ReservedCapacity("cr-0123456789abcdef0", 4)},
        "either reservation_id or instance_count",
    ),
    (
        NODES,
        {**RESERVED, "reservation": ReservedCapacity("reserved")},
        "reservation.reservation_id is 'reserved'",
    ),
    (NODES, {"capacity_type": "SPOT"}, "CapacityType.ON_DEMAND, CapacityType.SPOT"),
    (NODES, {**RESERVED, "capacity_type": "SPOT"}, "capacity_type is 'SPOT'"),
    (NODES, {"root_volume_gib": 99}, "root_volume_gib is 99; allowed: a number ≥ 100"),
    (NODES, {"labels": {"node-type": "x"}}, "the group itself sets this label"),
    (NODES, {"labels": {"nvidia.com/gpu": "x"}}, "the group itself sets this label"),
    (NODES, {"labels": {"node.kubernetes.io/x": "x"}}, "the group itself sets this label"),
    (NODES, {"labels": {"team name": "x"}}, "labels['team name'] is 'team name'"),
    (NODES, {"labels": {"team": "a b"}}, "labels['team'] is 'a b'"),
    (NODES, {"labels": {f"l{n}": "x" for n in range(47)}}, "at most 46 further labels"),
    (CHARTS, {"versions": AddonVersions(dcgm_exporter="^4")}, "versions.dcgm_exporter is '^4'"),
]

PERMITTED: list[tuple[Any, dict[str, Any]]] = [
    (CLUSTER, {"availability_zones": [f"us-east-1{zone}" for zone in "abcdef"]}),
    (CLUSTER, {"availability_zones": ["us-gov-west-1a", "us-gov-west-1b"]}),
    (CLUSTER, {"administrators": [pulumi.Output.from_input("unknown as yet")]}),
    (CLUSTER, {"vpc_cidr": "172.16.16.0/20"}),
    (CLUSTER, {"public_access_cidrs": ["198.51.100.0/24"]}),
    (CLUSTER, {"interface_endpoints": []}),
    (NODES, {"min_size": 0}),
    (NODES, {"instance_types": ["p5.4xlarge", "p5.48xlarge"]}),
    (NODES, {"instance_types": ["p7.48xlarge"], "accelerator": "x", "gpus_per_node": 8}),
    (NODES, {"accelerator": "h100", "gpus_per_node": 1}),
    (NODES, {"mig_profile": "1g.20gb"}),
    (NODES, {"capacity_type": CapacityType.SPOT}),
    (NODES, RESERVED),
    (NODES, {**RESERVED, "reservation": ReservedCapacity("cr-0123456789abcdef0"), "max_size": 9}),
    (NODES, {"subnets": {"us-east-1a": "subnet-a"}, "reservation": RESERVED["reservation"]}),
    (NODES, {"root_volume_gib": 100}),
    (NODES, {"labels": {"example.com/team": "speech", "mynvidia.com/x": "y"}}),
    (CHARTS, {"versions": AddonVersions(dcgm_exporter="4.0.0-rc.1")}),
]


@pytest.mark.parametrize(("valid", "change", "message"), REFUSALS)
def test_what_aws_would_refuse_is_refused_by_name(
    valid: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentsError) as refused:
        replace(valid, **change)
    component = type(valid).__name__.removesuffix("Args")
    assert message in str(refused.value)
    assert all(line.startswith(f"{component}: ") for line in str(refused.value).splitlines())


@pytest.mark.parametrize(("valid", "change"), PERMITTED)
def test_what_aws_takes_is_taken(valid: Any, change: dict[str, Any]) -> None:
    replace(valid, **change)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ArgumentsError) as refused:
        replace(NODES, min_size=5, root_volume_gib=8, mig_profile="1g.5gb")
    assert len(str(refused.value).splitlines()) == 3


def test_a_region_follows_from_its_zones() -> None:
    assert CLUSTER.region == "us-east-1"
