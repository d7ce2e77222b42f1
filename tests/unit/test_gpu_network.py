"""Which addresses the subnets of a cluster get, and names that follow from others."""

from __future__ import annotations

import ipaddress
import json
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicemesh.cluster.names import (
    account_of,
    cluster_access_policy_arn,
    endpoint_service,
    kubeconfig,
    managed_policy_arn,
    partition_of,
)
from voicemesh.cluster.subnets import MAX_ZONES, VPC_PREFIXES, plan_subnets

ZONES = [f"eu-west-1{letter}" for letter in "abcdef"]


@given(prefix=st.sampled_from(VPC_PREFIXES), zones=st.integers(min_value=1, max_value=MAX_ZONES))
def test_subnets_lie_in_the_vpc_and_do_not_overlap(prefix: int, zones: int) -> None:
    vpc = ipaddress.IPv4Network(f"10.32.0.0/{prefix}")
    plan = plan_subnets(str(vpc), ZONES[:zones])
    subnets = [
        ipaddress.IPv4Network(cidr)
        for of_zone in plan.values()
        for cidr in (of_zone.private, of_zone.public)
    ]
    assert all(subnet.subnet_of(vpc) for subnet in subnets)
    assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))


@given(prefix=st.sampled_from(VPC_PREFIXES))
def test_each_zone_has_room_for_pods_and_for_load_balancers(prefix: int) -> None:
    plan = plan_subnets(f"10.32.0.0/{prefix}", ZONES)
    for of_zone in plan.values():
        # AWS keeps five addresses of each subnet; a load balancer asks for eight free ones.
        assert ipaddress.IPv4Network(of_zone.private).num_addresses >= 512
        assert ipaddress.IPv4Network(of_zone.public).num_addresses >= 16


def test_a_zone_that_is_added_at_the_end_leaves_the_others_where_they_are() -> None:
    two, three = plan_subnets("10.0.0.0/16", ZONES[:2]), plan_subnets("10.0.0.0/16", ZONES[:3])
    assert {zone: three[zone] for zone in two} == two


def test_the_default_vpc_is_divided_as_documented() -> None:
    plan = plan_subnets("10.0.0.0/16", ZONES[:2])
    assert (plan["eu-west-1a"].private, plan["eu-west-1a"].public) == (
        "10.0.0.0/19",
        "10.0.224.0/22",
    )
    assert (plan["eu-west-1b"].private, plan["eu-west-1b"].public) == (
        "10.0.32.0/19",
        "10.0.228.0/22",
    )


def test_more_zones_than_there_are_places_are_refused() -> None:
    with pytest.raises(ValueError, match="7 zones; there is room for 6"):
        plan_subnets("10.0.0.0/16", [*ZONES, "eu-west-1g"])


@pytest.mark.parametrize(
    ("region", "partition"),
    [("us-east-1", "aws"), ("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn")],
)
def test_arns_start_with_the_partition_of_their_region(region: str, partition: str) -> None:
    assert partition_of(region) == partition
    assert managed_policy_arn(partition, "P") == f"arn:{partition}:iam::aws:policy/P"
    assert cluster_access_policy_arn(partition, "P").startswith(f"arn:{partition}:eks::aws:")


@pytest.mark.parametrize(
    ("region", "service", "name"),
    [
        ("us-east-1", "ecr.api", "com.amazonaws.us-east-1.ecr.api"),
        ("us-east-1", "s3", "com.amazonaws.us-east-1.s3"),
        ("cn-north-1", "ecr.api", "cn.com.amazonaws.cn-north-1.ecr.api"),
        ("cn-north-1", "s3", "com.amazonaws.cn-north-1.s3"),
        ("cn-north-1", "kms", "com.amazonaws.cn-north-1.kms"),
    ],
)
def test_an_endpoint_asks_for_its_service_by_the_name_it_has_in_the_region(
    region: str, service: str, name: str
) -> None:
    assert endpoint_service(region, service) == name


def test_the_account_is_read_from_an_arn() -> None:
    assert account_of("arn:aws:iam::123456789012:role/r") == "123456789012"


def test_a_kubeconfig_holds_no_credentials_but_how_to_get_them() -> None:
    config = json.loads(kubeconfig("prod", "eu-west-1", "https://e", "QUFB"))
    (cluster,), (user,) = config["clusters"], config["users"]
    assert cluster["cluster"] == {"server": "https://e", "certificate-authority-data": "QUFB"}
    assert set(user["user"]) == {"exec"}
    command = [user["user"]["exec"]["command"], *user["user"]["exec"]["args"]]
    assert command == ["aws", "--region", "eu-west-1", "eks", "get-token", "--cluster-name", "prod"]
    assert config["current-context"] == config["contexts"][0]["name"] == "prod"
