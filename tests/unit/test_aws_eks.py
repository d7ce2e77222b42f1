"""What the local AWS server adds to moto's EKS, asked with boto3."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws_servers import AwsServer, recording_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    with recording_server(tmp_path_factory.mktemp("aws")) as server:
        yield server


ROLE = "arn:aws:iam::123456789012:role/speech"


@pytest.fixture
def eks(server: AwsServer) -> Iterator[Any]:
    """A client, of a region with a cluster and a node group."""
    ec2, client = server.client("ec2"), server.client("eks")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]["SubnetId"]
    client.create_cluster(
        name="speech",
        roleArn=ROLE,
        version="1.35",
        resourcesVpcConfig={"subnetIds": [subnet], "publicAccessCidrs": ["192.0.2.0/24"]},
    )
    client.create_nodegroup(
        clusterName="speech",
        nodegroupName="online",
        nodeRole=ROLE,
        subnets=[subnet],
        scalingConfig={"minSize": 0, "maxSize": 4, "desiredSize": 1},
        launchTemplate={"id": "lt-1", "version": "1"},
    )
    yield client
    request = urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310


def network_of(eks: Any) -> dict[str, Any]:
    return eks.describe_cluster(name="speech")["cluster"]["resourcesVpcConfig"]


def test_a_cluster_has_a_security_group_as_long_as_it_lives(server: AwsServer, eks: Any) -> None:
    ec2, network = server.client("ec2"), network_of(eks)
    ids = [network["clusterSecurityGroupId"]]
    (group,) = ec2.describe_security_groups(GroupIds=ids)["SecurityGroups"]
    assert group["VpcId"] == network["vpcId"]
    eks.delete_nodegroup(clusterName="speech", nodegroupName="online")
    eks.delete_cluster(name="speech")
    with pytest.raises(ClientError, match=r"InvalidGroup\.NotFound"):
        ec2.describe_security_groups(GroupIds=ids)


def test_a_changed_part_of_a_clusters_network_leaves_the_rest(eks: Any) -> None:
    before = network_of(eks)
    eks.update_cluster_config(name="speech", resourcesVpcConfig={"endpointPublicAccess": False})
    assert network_of(eks) == {**before, "endpointPublicAccess": False}


def test_a_protected_cluster_is_not_deleted(eks: Any) -> None:
    eks.delete_nodegroup(clusterName="speech", nodegroupName="online")
    eks.update_cluster_config(name="speech", deletionProtection=True)
    assert eks.describe_cluster(name="speech")["cluster"]["deletionProtection"] is True
    with pytest.raises(ClientError, match=r"InvalidRequestException.*deletion protection"):
        eks.delete_cluster(name="speech")
    eks.update_cluster_config(name="speech", deletionProtection=False)
    eks.delete_cluster(name="speech")


def test_versions_of_cluster_and_node_group_change(eks: Any) -> None:
    eks.update_cluster_version(name="speech", version="1.36")
    assert eks.describe_cluster(name="speech")["cluster"]["version"] == "1.36"
    place = {"clusterName": "speech", "nodegroupName": "online"}
    eks.update_nodegroup_version(
        **place, version="1.36", launchTemplate={"id": "lt-1", "version": "2"}
    )
    group = eks.describe_nodegroup(**place)["nodegroup"]
    assert group["version"] == "1.36"
    assert group["launchTemplate"]["version"] == "2"


def test_a_node_group_is_tagged_by_its_arn_and_an_unknown_one_is_refused(eks: Any) -> None:
    place = {"clusterName": "speech", "nodegroupName": "online"}
    arn = eks.describe_nodegroup(**place)["nodegroup"]["nodegroupArn"]
    eks.tag_resource(resourceArn=arn, tags={"team": "speech", "cost": "tts"})
    eks.untag_resource(resourceArn=arn, tagKeys=["cost"])
    assert eks.describe_nodegroup(**place)["nodegroup"]["tags"] == {"team": "speech"}
    assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "speech"}
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        eks.tag_resource(resourceArn=f"{arn}-other", tags={"team": "speech"})


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"minSize": 2, "maxSize": 4, "desiredSize": 1}, "Minimum capacity 2"),
        ({"minSize": 0, "maxSize": 4, "desiredSize": 5}, "max size 4"),
    ],
)
def test_a_desired_size_out_of_bounds_is_refused(
    eks: Any, sizes: dict[str, int], reason: str
) -> None:
    with pytest.raises(ClientError, match=f"InvalidParameterException.*{reason}"):
        eks.update_nodegroup_config(
            clusterName="speech", nodegroupName="online", scalingConfig=sizes
        )
    at_the_bounds = {"minSize": 2, "maxSize": 2, "desiredSize": 2}
    eks.update_nodegroup_config(
        clusterName="speech", nodegroupName="online", scalingConfig=at_the_bounds
    )
