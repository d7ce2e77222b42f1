"""The AWS provider plugin on the real engine, against the local AWS server."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.aws_servers import recording_server

from .engine import Stack

_SECRET_KEY = "the-secret-key-of-the-tests"
_REGION = "eu-central-1"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a local AWS server of these tests."""
    with recording_server(tmp_path_factory.mktemp("aws")) as server:
        yield server.url


def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=_REGION,
        aws_access_key_id="someone",
        aws_secret_access_key="else",
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture
def s3(endpoint: str) -> Any:
    return client("s3", endpoint)


@pytest.fixture
def stack(tmp_path: Path, endpoint: str) -> Stack:
    stack = Stack(tmp_path / "project", tmp_path / "no-kubeconfig")
    stack.environment["AWS_ENDPOINT"] = endpoint
    return stack


HEAD = f"""
import os
import pulumi_aws as aws

aws_local = aws.Provider(
    "local",
    region="{_REGION}",
    access_key="an-access-key",
    secret_key="{_SECRET_KEY}",
    endpoints=[{{service: os.environ["AWS_ENDPOINT"] for service in ("s3", "kms", "sts")}}],
    default_tags={{"tags": {{"project": "voicemesh"}}}},
    s3_use_path_style=True,
    skip_credentials_validation=True,
    skip_requesting_account_id=True,
    skip_metadata_api_check=True,
)
here = pulumi.ResourceOptions(provider=aws_local)
"""

STORAGE = """
key = aws.kms.Key("voices", description="{description}", enable_key_rotation=True, opts=here)
alias = aws.kms.Alias("voices", target_key_id=key.key_id, opts=here)
bucket = aws.s3.Bucket("{name}", force_destroy=True, tags={{"team": "{team}"}}, opts=here)
versioning = aws.s3.BucketVersioning(
    "versioning",
    bucket=bucket.id,
    versioning_configuration={{"status": "Enabled"}},
    opts=here,
)
aws.s3.BucketServerSideEncryptionConfiguration(
    "encryption",
    bucket=bucket.id,
    rules=[
        {{
            "apply_server_side_encryption_by_default": {{
                "sse_algorithm": "aws:kms",
                "kms_master_key_id": key.arn,
            }},
            "bucket_key_enabled": True,
        }}
    ],
    opts=here,
)
aws.s3.BucketPublicAccessBlock(
    "private",
    bucket=bucket.id,
    block_public_acls=True,
    block_public_policy=True,
    ignore_public_acls=True,
    restrict_public_buckets=True,
    opts=here,
)
aws.s3.BucketOwnershipControls(
    "ownership",
    bucket=bucket.id,
    rule={{"object_ownership": "BucketOwnerEnforced"}},
    opts=here,
)
aws.s3.BucketLifecycleConfiguration(
    "expiry",
    bucket=bucket.id,
    rules=[
        {{
            "id": "outputs",
            "status": "Enabled",
            "filter": {{"prefix": "outputs/"}},
            "expiration": {{"days": {days}}},
            "noncurrent_version_expiration": {{"noncurrent_days": 1}},
            "abort_incomplete_multipart_upload": {{"days_after_initiation": 1}},
        }},
        {{
            "id": "markers",
            "status": "Enabled",
            "expiration": {{"expired_object_delete_marker": True}},
        }},
    ],
    opts=here,
)
aws.s3.BucketPolicy(
    "policy",
    bucket=bucket.id,
    policy=bucket.arn.apply(
        lambda arn: json.dumps(
            {{
                "Version": "2012-10-17",
                "Statement": [
                    {{
                        "Sid": "TlsOnly",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [arn, arn + "/*"],
                        "Condition": {{"Bool": {{"aws:SecureTransport": "false"}}}},
                    }}
                ],
            }}
        )
    ),
    opts=here,
)
aws.s3.BucketObjectv2("readme", bucket=bucket.id, key="models/README", content="hello", opts=here)
pulumi.export("bucket", bucket.bucket)
pulumi.export("key", key.key_id)
"""


def storage(**changed: Any) -> str:
    values = {"name": "voices", "days": 7, "team": "speech", "description": "Voices", **changed}
    return HEAD + STORAGE.format(**values)


def test_storage_is_created_kept_changed_in_place_healed_replaced_and_destroyed(
    stack: Stack, s3: Any, endpoint: str
) -> None:
    stack.up(storage())
    first, key = (stack.outputs()[name] for name in ("bucket", "key"))
    assert re.fullmatch(r"voices-[0-9a-f]{7}", first)
    _assert_made(s3, first, endpoint, key)
    stack.refresh("--expect-no-changes")
    stack.unchanged()

    outcome = stack.up(storage(days=9, team="audio", description="Voices of tenants"))
    assert outcome.counts == {"updated": 3, "unchanged": 9}
    assert s3.get_bucket_lifecycle_configuration(Bucket=first)["Rules"][0]["Expiration"] == {
        "Days": 9
    }
    assert _tags(s3, first) == {"team": "audio", "project": "voicemesh"}

    _change_behind_pulumis_back(s3, first)
    outcome = stack.refresh()
    assert outcome.counts == {"updated": 2, "deleted": 1, "unchanged": 9}
    stack.up()
    _assert_healed(s3, first)

    stack.up(storage(name="speech"))
    second = stack.outputs()["bucket"]
    assert re.fullmatch(r"speech-[0-9a-f]{7}", second)
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [second]

    stack.destroy()
    assert s3.list_buckets()["Buckets"] == []
    metadata = client("kms", endpoint).describe_key(KeyId=key)["KeyMetadata"]
    assert metadata["KeyState"] == "PendingDeletion"


def test_a_server_that_lost_everything_is_filled_again_and_destroy_needs_nothing_to_be_there(
    stack: Stack, s3: Any, endpoint: str
) -> None:
    stack.up(storage())
    _lose_everything(endpoint)
    stack.up(None, "--refresh")
    _assert_made(s3, stack.outputs()["bucket"], endpoint, stack.outputs()["key"])
    _lose_everything(endpoint)
    stack.destroy()
    assert stack.names() == []


def _lose_everything(endpoint: str) -> None:
    request = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310


def _assert_made(s3: Any, bucket: str, endpoint: str, key: str) -> None:
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    default = rule["ApplyServerSideEncryptionByDefault"]
    assert default["SSEAlgorithm"] == "aws:kms"
    assert default["KMSMasterKeyID"].endswith(f":key/{key}")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    assert len(block) == 4
    assert _tags(s3, bucket) == {"team": "speech", "project": "voicemesh"}
    assert s3.get_object(Bucket=bucket, Key="models/README")["Body"].read() == b"hello"
    kms = client("kms", endpoint)
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    aliases = kms.list_aliases(KeyId=key)["Aliases"]
    assert [re.sub("[0-9a-f]{7}$", "…", a["AliasName"]) for a in aliases] == ["alias/voices-…"]


def _tags(s3: Any, bucket: str) -> dict[str, str]:
    pairs = s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    return {pair["Key"]: pair["Value"] for pair in pairs}


def _change_behind_pulumis_back(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.delete_bucket_lifecycle(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="models/README", Body=b"changed")
    s3.put_object(Bucket=bucket, Key="outputs/made-by-nobody", Body=b"in the way of destroy")


def _assert_healed(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == 2
    assert s3.get_object(Bucket=bucket, Key="models/README")["Body"].read() == b"hello"


def test_wrong_inputs_are_refused_in_the_preview_all_at_once_by_property_and_reason(
    stack: Stack,
) -> None:
    program = """
aws.s3.BucketLifecycleConfiguration(
    "expiry",
    bucket="some-bucket",
    rules=[
        {"id": "a", "status": "Enabled", "expiration": {"days": 0}},
        {"id": "b", "status": "Enabled", "expiry": {"days": 7}},
        {
            "id": "c",
            "status": "Enabled",
            "transitions": [{"days": 30, "storage_class": "FLOPPY"}],
        },
    ],
    opts=here,
)
"""
    outcome = stack.preview(HEAD + program, fails=True)
    for path, reason in (
        ("rules[0].expiration.days", "0 is below the minimum of 1"),
        ("rules[1].expiry", "is no property of rules[1]"),
        ("rules[2].transitions[0].storageClass", "'FLOPPY' is not one of GLACIER"),
    ):
        assert re.search(f"{re.escape(path)}.*{re.escape(reason)}", outcome.text), outcome.text


def test_what_the_plugin_does_not_know_is_refused_by_name(stack: Stack) -> None:
    program = 'aws.sqs.Queue("jobs", opts=here)'
    outcome = stack.preview(HEAD + program, fails=True)
    assert "aws:sqs/queue:Queue is not supported by the embedded environment" in outcome.text


def test_an_error_of_aws_names_resource_operation_and_code(stack: Stack, s3: Any) -> None:
    program = """
aws.s3.BucketVersioning(
    "versioning",
    bucket="no-such-bucket",
    versioning_configuration={"status": "Enabled"},
    opts=here,
)
"""
    outcome = stack.up(HEAD + program, fails=True)
    assert "versioning: PutBucketVersioning: NoSuchBucket: " in outcome.text


def test_the_secret_key_is_nowhere_in_the_state_and_the_output(stack: Stack) -> None:
    outcome = stack.up(HEAD + 'aws.s3.Bucket("voices", opts=here)')
    state = stack.export()
    assert _SECRET_KEY not in outcome.text + state
    assert _SECRET_KEY in stack.export(secrets=True)
    assert "aws:s3/bucket:Bucket" in state
    stack.destroy()


IMPORTED = """
aws.s3.Bucket(
    "{name}",
    bucket="{name}",
    tags={{"team": "speech"}},
    opts=pulumi.ResourceOptions(provider=aws_local, import_="{name}"),
)
"""


def test_a_bucket_is_imported_by_its_name_and_changed_only_where_the_program_differs(
    stack: Stack, s3: Any
) -> None:
    for name, team in (("same", "speech"), ("other", "audio")):
        location = {"LocationConstraint": _REGION}
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=location)
        tags = [{"Key": "team", "Value": team}, {"Key": "project", "Value": "voicemesh"}]
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    outcome = stack.up(HEAD + IMPORTED.format(name="same") + IMPORTED.format(name="other"))
    assert "= 2 imported" in outcome.text
    assert "~ 1 updated" in outcome.text
    assert _tags(s3, "other") == {"team": "speech", "project": "voicemesh"}
    assert stack.resource("same")["outputs"]["arn"] == "arn:aws:s3:::same"
    stack.destroy()
    assert s3.list_buckets()["Buckets"] == []


FOUND = """
def existing(id):
    return pulumi.ResourceOptions(provider=aws_local, import_=id)
vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", opts=existing("{vpc}"))
subnet = aws.ec2.Subnet(
    "subnet",
    vpc_id=vpc.id,
    cidr_block="10.0.0.0/20",
    availability_zone="{region}a",
    opts=existing("{subnet}"),
)
table = aws.ec2.RouteTable("table", vpc_id=vpc.id, opts=existing("{table}"))
aws.ec2.Route(
    "route",
    route_table_id=table.id,
    destination_cidr_block="0.0.0.0/0",
    gateway_id="{gateway}",
    opts=existing("{table}_0.0.0.0/0"),
)
role = aws.iam.Role(
    "role", name="nodes", assume_role_policy='{trust}', opts=existing("nodes")
)
aws.ecr.Repository("images", name="speech", opts=existing("speech"))
aws.cloudwatch.LogGroup("logs", name="speech", retention_in_days=7, opts=existing("speech"))
cluster = aws.eks.Cluster(
    "cluster",
    name="speech",
    role_arn=role.arn,
    version="1.35",
    vpc_config={{"subnet_ids": [subnet.id]}},
    opts=existing("speech"),
)
aws.eks.NodeGroup(
    "group",
    cluster_name=cluster.name,
    node_group_name="online",
    node_role_arn=role.arn,
    subnet_ids=[subnet.id],
    scaling_config={{"min_size": 0, "max_size": {size}, "desired_size": 0}},
    taints=[{{"key": "gpu", "value": "true", "effect": "NO_SCHEDULE"}}],
    opts=existing("speech:online"),
)
"""


def test_networks_and_clusters_are_imported_and_changed_only_where_the_program_differs(
    stack: Stack, endpoint: str
) -> None:
    program = HEAD.replace('("s3", "kms", "sts")', '("ec2", "ecr", "eks", "iam", "logs", "sts")')
    ids = _make_a_cluster(endpoint)
    outcome = stack.up(program + FOUND.format(**ids, size=4))
    assert outcome.counts == {"created": 2, "imported": 9, "updated": 1}
    eks = client("eks", endpoint)
    group = eks.describe_nodegroup(clusterName="speech", nodegroupName="online")["nodegroup"]
    assert group["scalingConfig"] == {"minSize": 0, "maxSize": 4, "desiredSize": 0}
    stack.refresh("--expect-no-changes")
    stack.destroy()
    assert eks.list_clusters()["clusters"] == []


def _make_a_cluster(endpoint: str) -> dict[str, str]:
    """Makes, beside Pulumi, what FOUND imports; returns the ids."""
    ec2, eks, iam = (client(service, endpoint) for service in ("ec2", "eks", "iam"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zone = f"{_REGION}a"
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20", AvailabilityZone=zone)
    subnet_id = subnet["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    tags = [{"Key": "project", "Value": "voicemesh"}]
    ec2.create_tags(Resources=[vpc, subnet_id, table], Tags=tags)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = iam.create_role(RoleName="nodes", AssumeRolePolicyDocument=trust, Tags=tags)
    role = made["Role"]["Arn"]
    client("ecr", endpoint).create_repository(repositoryName="speech", tags=tags)
    logs = client("logs", endpoint)
    logs.create_log_group(logGroupName="speech", tags={"project": "voicemesh"})
    logs.put_retention_policy(logGroupName="speech", retentionInDays=7)
    common = {"tags": {"project": "voicemesh"}}
    network = {"subnetIds": [subnet_id]}
    eks.create_cluster(
        name="speech", roleArn=role, version="1.35", resourcesVpcConfig=network, **common
    )
    eks.create_nodegroup(
        clusterName="speech",
        nodegroupName="online",
        nodeRole=role,
        subnets=[subnet_id],
        scalingConfig={"minSize": 0, "maxSize": 2, "desiredSize": 0},
        taints=[{"key": "gpu", "value": "true", "effect": "NO_SCHEDULE"}],
        **common,
    )
    ids = {"vpc": vpc, "subnet": subnet_id, "table": table, "gateway": gateway}
    return {**ids, "trust": trust, "region": _REGION}


def test_a_policy_document_and_the_account_are_told_to_programs(stack: Stack) -> None:
    program = """
at = pulumi.InvokeOptions(provider=aws_local)
document = aws.iam.get_policy_document_output(
    statements=[
        {
            "sid": "Read",
            "actions": ["s3:GetObject"],
            "resources": ["arn:aws:s3:::voices/*"],
            "principals": [{"type": "AWS", "identifiers": ["*"]}],
            "conditions": [{"test": "Bool", "variable": "aws:SecureTransport", "values": ["true"]}],
        }
    ],
    opts=at,
)
pulumi.export("document", document.json)
pulumi.export("account", aws.get_caller_identity_output(opts=at).account_id)
pulumi.export("region", aws.get_region_output(opts=at).region)
"""
    stack.up(HEAD + program)
    outputs = stack.outputs()
    assert outputs["account"] == "123456789012"
    assert outputs["region"] == _REGION
    assert json.loads(outputs["document"])["Statement"] == [
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::voices/*",
            "Principal": {"AWS": "*"},
            "Condition": {"Bool": {"aws:SecureTransport": "true"}},
        }
    ]
