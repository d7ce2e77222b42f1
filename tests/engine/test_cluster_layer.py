"""The layer `cluster` of production: the real program and its committed configuration, on the real
engine, against the local AWS server.

What is changed of the configuration: where AWS is, and whose keys are used.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.adapters.aws_provider.provider import UNSIMULATED
from infra.local.paths import CHECKOUT
from tests.aws_servers import AwsServer, recording_server
from tests.evaluators import proofs
from tests.stacks import changed, stack_values

from .engine import Outcome, Stack

_REGION = "us-east-2"
_NAME = "voicemesh-prod-cluster"
_GROUPS = {"online-reserved": 0, "online-on-demand": 1, "online-slices": 2, "offline": 3}
"""The committed node groups, and where they stand in the configuration."""


class Layer:
    """The stack `prod-cluster` in a project folder of the test's own."""

    def __init__(self, folder: Path, server: AwsServer) -> None:
        self.server = server
        self.stack = Stack(folder / "project", folder / "no-kubeconfig")
        project = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
        project["main"] = str(CHECKOUT / "infra")
        project["runtime"]["options"]["virtualenv"] = str(CHECKOUT / ".venv")
        (self.stack.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        self._file = self.stack.folder / "Pulumi.prod-cluster.yaml"
        self.stack.cli("stack", "init", "prod-cluster")
        self.stack.cli("config", "set", "--secret", "--path", "voicemesh:aws.secretKey", "secret")
        self._written = yaml.safe_load(self._file.read_text())
        keys = self._written["config"]["voicemesh:aws"]
        values = stack_values("prod-cluster")
        values["aws"] |= {"endpoint": server.url, "accessKey": "access", **keys}
        self.values = values

    def up(self, *path: str | int, to: Any = None, flags: Sequence[str] = ()) -> Outcome:
        """Brings the stack up, with one value of the configuration changed where one is named."""
        values = changed(self.values, *path, to=to) if path else self.values
        self._configure(values)
        outcome = self.stack.up(None, *flags)
        self.values = values
        return outcome

    def unchanged(self) -> None:
        self._configure(self.values)
        self.stack.unchanged()

    def _configure(self, values: Mapping[str, Any]) -> None:
        config = {f"voicemesh:{key}": value for key, value in values.items()}
        config["pulumi:disable-default-providers"] = ["*"]
        self._file.write_text(yaml.safe_dump({**self._written, "config": config}))

    def client(self, service: str) -> Any:
        return self.server.client(service, _REGION)

    @property
    def bucket(self) -> str:
        (bucket,) = self.client("s3").list_buckets()["Buckets"]
        return bucket["Name"]

    @property
    def bucket_rules(self) -> dict[str, Any]:
        """The bucket's lifecycle as AWS has stored it."""
        return self.client("s3").get_bucket_lifecycle_configuration(Bucket=self.bucket)

    @property
    def image_rules(self) -> list[str]:
        """The lifecycle policy of each repository as AWS has stored it."""
        ecr = self.client("ecr")
        names = [it["repositoryName"] for it in ecr.describe_repositories()["repositories"]]
        return [ecr.get_lifecycle_policy(repositoryName=it)["lifecyclePolicyText"] for it in names]

    def group(self, name: str) -> dict[str, Any]:
        """What AWS tells of a node group."""
        eks = self.client("eks")
        names = eks.list_nodegroups(clusterName=_NAME)["nodegroups"]
        (full_name,) = (n for n in names if re.fullmatch(rf"{name}(-[0-9a-f]{{7}})?", n))
        return eks.describe_nodegroup(clusterName=_NAME, nodegroupName=full_name)["nodegroup"]

    def template_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a node group's launch template, in the version that the group uses."""
        template = group["launchTemplate"]
        versions = self.client("ec2").describe_launch_template_versions(
            LaunchTemplateId=template["id"], Versions=[template["version"]]
        )
        return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]


@contextmanager
def running_layer(folder: Path) -> Iterator[Layer]:
    with recording_server(folder) as server:
        yield Layer(folder, server)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Layer, Outcome]]:
    """The layer as it is committed, and the outcome of its first `up`."""
    with running_layer(tmp_path_factory.mktemp("layer")) as layer:
        yield layer, layer.up()


@pytest.fixture
def layer(made: tuple[Layer, Outcome]) -> Layer:
    return made[0]


def test_the_first_up_makes_everything_and_says_what_was_not_simulated(
    made: tuple[Layer, Outcome],
) -> None:
    layer, outcome = made
    resources = json.loads(layer.stack.export())["deployment"]["resources"]
    assert outcome.counts == {"created": len(resources)}
    unsimulated = [item for item in resources if item["type"] in UNSIMULATED]
    kinds = {item["type"].rpartition(":")[2] for item in unsimulated}
    assert kinds == {
        "AccessEntry",
        "AccessPolicyAssociation",
        "Addon",
        "CapacityReservation",
        "PodIdentityAssociation",
    }
    for item in unsimulated:
        kind, id_ = item["type"].rpartition(":")[2], re.escape(item["id"])
        line = rf"^    not simulated by the local AWS server: (eks|ec2) {kind} {id_}$"
        assert re.search(line, outcome.text, re.MULTILINE), item["urn"]


def test_an_unchanged_program_plans_nothing_and_a_refresh_finds_no_drift(layer: Layer) -> None:
    layer.unchanged()
    layer.stack.refresh("--expect-no-changes")


GPU_TAINT = {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}
OFFLINE_TAINT = {"key": "workload", "value": "offline", "effect": "NO_SCHEDULE"}


@pytest.mark.parametrize(
    ("name", "node_type", "zones", "capacity", "types", "taints", "more"),
    [
        (
            "online-reserved",
            "online-inference",
            ["a"],
            "ON_DEMAND",
            ["p5.4xlarge"],
            [GPU_TAINT],
            {"k8s.amazonaws.com/accelerator": "h100"},
        ),
        (
            "online-on-demand",
            "online-inference",
            ["b", "c"],
            "ON_DEMAND",
            ["p5.4xlarge"],
            [GPU_TAINT],
            {"k8s.amazonaws.com/accelerator": "h100"},
        ),
        (
            "online-slices",
            "online-inference",
            ["b", "c"],
            "ON_DEMAND",
            ["p5.4xlarge"],
            [GPU_TAINT],
            {"nvidia.com/mig.config": "all-1g.20gb"},
        ),
        (
            "offline",
            "offline-inference",
            ["a", "b", "c"],
            "SPOT",
            ["p5.4xlarge", "p5.48xlarge"],
            [GPU_TAINT, OFFLINE_TAINT],
            {"k8s.amazonaws.com/accelerator": "h100"},
        ),
    ],
)
def test_aws_tells_of_each_node_group_what_was_configured(
    layer: Layer,
    name: str,
    node_type: str,
    zones: list[str],
    capacity: str,
    types: list[str],
    taints: list[dict[str, str]],
    more: dict[str, str],
) -> None:
    group = layer.group(name)
    assert group["amiType"] == "AL2023_x86_64_NVIDIA"
    assert group["capacityType"] == capacity
    assert group["instanceTypes"] == types
    assert sorted(group["taints"], key=json.dumps) == sorted(taints, key=json.dumps)
    assert group["labels"] == {
        "accelerator": "h100",
        "node-type": node_type,
        "nvidia.com/gpu.present": "true",
        **more,
    }
    described = layer.client("ec2").describe_subnets(SubnetIds=group["subnets"])["Subnets"]
    assert sorted(subnet["AvailabilityZone"][-1] for subnet in described) == zones
    assert not any(subnet["MapPublicIpOnLaunch"] for subnet in described)


def test_gpu_nodes_start_with_an_encrypted_volume_and_metadata_that_pods_do_not_reach(
    layer: Layer,
) -> None:
    for name in _GROUPS:
        data = layer.template_of(layer.group(name))
        (disk,) = data["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"] is True
        assert disk["Ebs"]["VolumeSize"] == 200
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        user_data = base64.b64decode(data["UserData"]).decode()
        assert "RAID0" in user_data
        assert ("1g.20gb" in user_data) is (name == "online-slices")


def test_reserved_nodes_and_no_others_take_the_reservation(layer: Layer) -> None:
    resources = json.loads(layer.stack.export())["deployment"]["resources"]
    (reservation,) = (r for r in resources if r["type"].endswith(":CapacityReservation"))
    assert reservation["inputs"]["instanceMatchCriteria"] == "targeted"
    for name in _GROUPS:
        target = layer.template_of(layer.group(name)).get("CapacityReservationSpecification")
        expected = {"CapacityReservationTarget": {"CapacityReservationId": reservation["id"]}}
        assert target == (expected if name == "online-reserved" else None)


def test_aws_tells_of_the_cluster_what_was_configured(layer: Layer) -> None:
    cluster = layer.client("eks").describe_cluster(name=_NAME)["cluster"]
    assert cluster["version"] == "1.35"
    (logging,) = (s for s in cluster["logging"]["clusterLogging"] if s["enabled"])
    assert len(logging["types"]) == 5
    assert cluster["encryptionConfig"][0]["resources"] == ["secrets"]
    network = cluster["resourcesVpcConfig"]
    assert network["endpointPrivateAccess"] is True
    assert network["publicAccessCidrs"] == ["198.51.100.0/24"]
    group = layer.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/eks/{_NAME}/")
    assert group["logGroups"][0]["retentionInDays"] == 365


def test_each_private_subnet_leaves_through_the_gateway_of_its_own_zone(layer: Layer) -> None:
    ec2 = layer.client("ec2")
    zones = {s["SubnetId"]: s["AvailabilityZone"] for s in ec2.describe_subnets()["Subnets"]}
    gateways = {g["NatGatewayId"]: zones[g["SubnetId"]] for g in _live_gateways(ec2)}
    private = layer.client("eks").describe_cluster(name=_NAME)["cluster"]["resourcesVpcConfig"]
    found = {}
    for table in ec2.describe_route_tables()["RouteTables"]:
        targets = [r["NatGatewayId"] for r in table["Routes"] if r.get("NatGatewayId")]
        for association in table["Associations"]:
            if association.get("SubnetId") in private["subnetIds"]:
                found[association["SubnetId"]] = [gateways[target] for target in targets]
    assert found == {subnet: [zones[subnet]] for subnet in private["subnetIds"]}
    assert len(set(gateways.values())) == 3


def test_aws_tells_that_the_bucket_is_private_encrypted_and_cleaned_up(layer: Layer) -> None:
    s3, bucket = layer.client("s3"), layer.bucket
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert block == dict.fromkeys(block, True)
    assert len(block) == 4
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    default = encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert default["SSEAlgorithm"] == "aws:kms"
    key = layer.client("kms").describe_key(KeyId=default["KMSMasterKeyID"])["KeyMetadata"]
    assert key["KeyManager"] == "CUSTOMER"
    assert "audio" in key["Description"]
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"


def test_stored_rules_expire_outputs_but_no_reference_voice_and_no_needed_image(
    layer: Layer,
) -> None:
    assert list(proofs.outputs_expire_and_voices_stay(layer.bucket_rules, output_days=7)) == []
    assert len(layer.image_rules) == 2
    for rules in layer.image_rules:
        assert list(proofs.no_needed_image_expires(rules, kept_days=14)) == []


def test_what_the_server_does_not_tell_was_in_the_requests(layer: Layer) -> None:
    (cluster,) = layer.server.requests("POST", "/clusters")
    assert cluster["accessConfig"] == {
        "authenticationMode": "API",
        "bootstrapClusterCreatorAdminPermissions": False,
    }
    assert cluster["upgradePolicy"] == {"supportType": "STANDARD"}
    assert cluster["bootstrapSelfManagedAddons"] is False
    assert cluster["deletionProtection"] is True
    groups = layer.server.requests("POST", f"/clusters/{_NAME}/node-groups")
    gpu = [group for group in groups if group["amiType"] == "AL2023_x86_64_NVIDIA"]
    assert len(gpu) == len(_GROUPS)
    for group in gpu:
        assert group["updateConfig"] == {"maxUnavailable": 1, "updateStrategy": "MINIMAL"}
        assert group["nodeRepairConfig"] == {"enabled": True}


def test_another_size_of_a_node_group_updates_it_in_place_and_nothing_else(layer: Layer) -> None:
    place = _GROUPS["online-on-demand"]
    before = layer.group("online-on-demand")
    outcome = layer.up("eks", "nodeGroups", place, "maxSize", to=12)
    assert outcome.done == {"~ aws:eks:NodeGroup online-on-demand updated"}
    after = layer.group("online-on-demand")
    assert after["scalingConfig"] == {**before["scalingConfig"], "maxSize": 12}
    assert after["nodegroupArn"] == before["nodegroupArn"]


def test_an_update_that_refreshes_keeps_the_size_that_the_autoscaler_chose(layer: Layer) -> None:
    group = layer.group("online-on-demand")
    scaling = {**group["scalingConfig"], "desiredSize": 5}
    layer.client("eks").update_nodegroup_config(
        clusterName=_NAME, nodegroupName=group["nodegroupName"], scalingConfig=scaling
    )
    place = _GROUPS["online-on-demand"]
    outcome = layer.up("eks", "nodeGroups", place, "maxSize", to=14, flags=["--refresh"])
    assert not {"created", "deleted", "replaced"} & outcome.counts.keys()
    assert layer.group("online-on-demand")["scalingConfig"] == {**scaling, "maxSize": 14}
    layer.unchanged()


def test_a_larger_root_volume_makes_a_new_template_version_that_the_group_then_uses(
    layer: Layer,
) -> None:
    before = layer.group("offline")
    outcome = layer.up("eks", "nodeGroups", _GROUPS["offline"], "rootVolumeGib", to=400)
    assert outcome.counts["updated"] == 2
    assert not {"created", "deleted", "replaced"} & outcome.counts.keys()
    after = layer.group("offline")
    assert after["nodegroupArn"] == before["nodegroupArn"]
    assert int(after["launchTemplate"]["version"]) == int(before["launchTemplate"]["version"]) + 1
    assert layer.template_of(after)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 400


def test_a_further_node_group_is_made_beside_the_others(layer: Layer) -> None:
    group = {"name": "online-spare", "minSize": 0, "maxSize": 1}
    outcome = layer.up("eks", "nodeGroups", "+", to=group)
    assert "+ aws:eks:NodeGroup online-spare created" in outcome.done
    assert not {"updated", "deleted", "replaced"} & outcome.counts.keys()
    assert layer.group("online-spare")["scalingConfig"]["maxSize"] == 1


def test_other_instance_types_make_a_new_node_group_before_the_old_one_goes(layer: Layer) -> None:
    before = layer.group("offline")
    types = ["p5.4xlarge"]
    outcome = layer.up("eks", "nodeGroups", _GROUPS["offline"], "instanceTypes", to=types)
    assert outcome.counts["replaced"] == 1
    assert not {"created", "updated", "deleted"} & outcome.counts.keys()
    after = layer.group("offline")
    assert after["nodegroupArn"] != before["nodegroupArn"]
    assert after["instanceTypes"] == types


def test_days_of_outputs_and_of_rollbacks_change_their_policies_in_place(layer: Layer) -> None:
    layer.values = changed(layer.values, "storage", "outputDays", to=3)
    outcome = layer.up("registry", "rollbackDays", to=30)
    assert outcome.counts["updated"] == 1 + len(layer.image_rules)
    assert not {"created", "deleted", "replaced"} & outcome.counts.keys()
    assert list(proofs.outputs_expire_and_voices_stay(layer.bucket_rules, output_days=3)) == []
    assert list(proofs.outputs_expire_and_voices_stay(layer.bucket_rules, output_days=7))
    for rules in layer.image_rules:
        assert list(proofs.no_needed_image_expires(rules, kept_days=30)) == []
        assert list(proofs.no_needed_image_expires(rules, kept_days=31))


def test_a_new_version_of_kubernetes_upgrades_cluster_and_node_groups_in_place(
    layer: Layer,
) -> None:
    before = layer.group("offline")
    outcome = layer.up("eks", "kubernetesVersion", to="1.36")
    assert not {"created", "deleted", "replaced"} & outcome.counts.keys()
    assert layer.client("eks").describe_cluster(name=_NAME)["cluster"]["version"] == "1.36"
    after = layer.group("offline")
    assert after["version"] == "1.36"
    assert after["nodegroupArn"] == before["nodegroupArn"]
    layer.unchanged()


def test_what_others_change_in_aws_is_noticed_and_put_right(layer: Layer) -> None:
    eks, s3, bucket = layer.client("eks"), layer.client("s3"), layer.bucket
    before = layer.group("offline")
    eks.update_nodegroup_config(
        clusterName=_NAME,
        nodegroupName=before["nodegroupName"],
        taints={"removeTaints": [OFFLINE_TAINT]},
    )
    s3.delete_public_access_block(Bucket=bucket)
    outcome = layer.stack.refresh()
    assert outcome.counts["updated"] == 1
    assert outcome.counts["deleted"] == 1
    assert "offline" in outcome.text
    outcome = layer.up()
    assert "~ aws:eks:NodeGroup offline updated" in outcome.done
    assert layer.group("offline")["taints"] == before["taints"]
    assert s3.get_public_access_block(Bucket=bucket)


def test_what_is_protected_stays_and_the_rest_goes_without_a_trace(tmp_path: Path) -> None:
    with running_layer(tmp_path) as layer:
        layer.up()
        assert all(left_in(layer).values())
        refused = layer.stack.cli("destroy", "--yes", fails=True)
        assert "protected" in refused.text
        assert all(left_in(layer).values())
        values = deepcopy(layer.values)
        for section in (values["eks"], values["registry"], values["storage"]):
            section["deletionProtection"] = False
        for group in values["eks"]["nodeGroups"]:
            group["deletionProtection"] = False
        layer.values = values
        layer.up()
        layer.stack.destroy()
        assert layer.stack.names() == []
        assert {kind: names for kind, names in left_in(layer).items() if names} == {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    with recording_server(tmp_path_factory.mktemp("components")) as server:
        yield server


@pytest.fixture
def stack(tmp_path: Path, server: AwsServer) -> Stack:
    stack = Stack(tmp_path / "project", tmp_path / "no-kubeconfig")
    stack.environment["AWS_ENDPOINT"] = server.url
    return stack


PROVIDER = """
import os
import pulumi_aws as aws
import voicemesh

services = ("ec2", "eks", "iam", "kms", "logs", "s3", "sts")
aws_local = aws.Provider(
    "local",
    region="eu-central-1",
    access_key="an-access-key",
    secret_key="a-secret-key",
    endpoints=[dict.fromkeys(services, os.environ["AWS_ENDPOINT"])],
    s3_use_path_style=True,
    skip_credentials_validation=True,
    skip_requesting_account_id=True,
    skip_metadata_api_check=True,
)
def options(**more):
    return pulumi.ResourceOptions(providers=[aws_local], **more)
"""

CLUSTER = """
cluster = voicemesh.GpuCluster(
    "{cluster}",
    voicemesh.GpuClusterArgs(
        cluster_name="speech",
        availability_zones=["eu-central-1a", "eu-central-1b"],
        administrators=["arn:aws:iam::123456789012:role/administrators"],
        deletion_protection=False,
    ),
    options({cluster_was}),
)
voicemesh.GpuNodeGroup(
    "{group}",
    voicemesh.GpuNodeGroupArgs(
        cluster_name=cluster.cluster_name,
        node_role_arn=cluster.node_role_arn,
        subnets=cluster.private_subnets,
        min_size=0,
        max_size=1,
    ),
    options({group_was}),
)
"""


def test_renamed_components_with_aliases_keep_every_resource(
    stack: Stack, server: AwsServer
) -> None:
    program = PROVIDER + CLUSTER
    names = {"cluster": "cluster", "group": "online", "cluster_was": "", "group_was": ""}
    made = stack.up(program.format(**names))
    eks = server.client("eks")
    groups = eks.list_nodegroups(clusterName="speech")["nodegroups"]
    renamed = {"cluster": "speech", "group": "talk"}
    aliased = {
        "cluster_was": "aliases=[pulumi.Alias(name='cluster')]",
        "group_was": "aliases=[pulumi.Alias(name='online')]",
    }
    planned = stack.preview(program.format(**renamed, cluster_was="", group_was=""))
    assert "to delete" in planned.text
    outcome = stack.up(program.format(**renamed, **aliased))
    assert not {"created", "deleted", "replaced"} & outcome.counts.keys(), outcome.text
    assert sum(outcome.counts.values()) == made.counts["created"]
    assert eks.list_nodegroups(clusterName="speech")["nodegroups"] == groups
    stack.destroy()


ACCESS = """
from pathlib import Path
from types import SimpleNamespace
from voicemesh.storage import access

async def sleep(seconds):
    with Path("waited").open("a") as waited:
        waited.write(f"{{seconds}} ")

access.asyncio = SimpleNamespace(sleep=sleep)
voicemesh.VoiceStorageAccess(
    "speech",
    voicemesh.VoiceStorageAccessArgs(
        cluster_name="speech",
        namespace="tts",
        service_account="speech",
        tenant="acme",
        bucket_arn="arn:aws:s3:::voices",
        key_arn="arn:aws:kms:eu-central-1:123456789012:key/k",
        tags={{"team": "{team}"}},
    ),
    options(),
)
"""


def test_pods_wait_for_a_role_when_it_is_new_and_at_no_other_time(stack: Stack) -> None:
    stack.up(PROVIDER + ACCESS.format(team="one"))
    waited = stack.folder / "waited"
    assert waited.read_text() == "20 "
    outcome = stack.up(PROVIDER + ACCESS.format(team="two"))
    assert outcome.counts["updated"] == 2
    stack.unchanged()
    assert waited.read_text() == "20 "
    stack.destroy()


STORAGE = """
voicemesh.VoiceStorage(
    "voices",
    voicemesh.VoiceStorageArgs(bucket_name="speech-models", deletion_protection=False),
    options(),
)
"""


def test_a_bucket_that_is_there_becomes_the_components_and_keeps_its_objects(
    stack: Stack, server: AwsServer
) -> None:
    s3 = server.client("s3")
    location = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket="speech-models", CreateBucketConfiguration=location)
    s3.put_object(Bucket="speech-models", Key="models/glm-tts", Body=b"weights")
    stack.up(PROVIDER)
    component = {
        "type": "voicemesh:index:VoiceStorage",
        "name": "component",
        "logicalName": "voices",
        "component": True,
    }
    bucket = {
        "type": "aws:s3/bucket:Bucket",
        "name": "bucket",
        "logicalName": "voices",
        "id": "speech-models",
        "parent": "component",
        "provider": "local",
    }
    known = {"local": stack.resource("local")["urn"]}
    path = stack.folder / "import.json"
    path.write_text(json.dumps({"nameTable": known, "resources": [component, bucket]}))
    stack.cli("import", "--file", str(path), "--yes", "--protect=false", "--generate-code=false")
    outcome = stack.up(PROVIDER + STORAGE)
    assert not {"deleted", "replaced"} & outcome.counts.keys(), outcome.text
    body = s3.get_object(Bucket="speech-models", Key="models/glm-tts")["Body"]
    assert body.read() == b"weights"
    assert s3.get_bucket_versioning(Bucket="speech-models")["Status"] == "Enabled"
    stack.unchanged()
    stack.destroy()


def left_in(layer: Layer) -> dict[str, list[str]]:
    """The names of what is in AWS, its default network and managed policies apart, by kind."""
    ec2, kms = layer.client("ec2"), layer.client("kms")
    own = {"Filters": [{"Name": "is-default", "Values": ["false"]}]}
    vpcs = [vpc["VpcId"] for vpc in ec2.describe_vpcs(**own)["Vpcs"]]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    tables = ec2.describe_route_tables()["RouteTables"]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    keys = [kms.describe_key(KeyId=key["KeyId"]) for key in kms.list_keys()["Keys"]]
    repositories = layer.client("ecr").describe_repositories()["repositories"]
    logs = layer.client("logs").describe_log_groups()["logGroups"]
    return {
        "addresses": [a["AllocationId"] for a in ec2.describe_addresses()["Addresses"]],
        "buckets": [b["Name"] for b in layer.client("s3").list_buckets()["Buckets"]],
        "clusters": layer.client("eks").list_clusters()["clusters"],
        "endpoints": [e["VpcEndpointId"] for e in endpoints if e["State"] != "deleted"],
        "gateways": [g["NatGatewayId"] for g in _live_gateways(ec2)],
        "groups": [g["GroupId"] for g in groups if g["GroupName"] != "default"],
        "internet gateways": [
            g["InternetGatewayId"]
            for g in ec2.describe_internet_gateways()["InternetGateways"]
            if any(a["VpcId"] in vpcs for a in g["Attachments"]) or not g["Attachments"]
        ],
        "keys": [
            k["KeyMetadata"]["KeyId"]
            for k in keys
            if k["KeyMetadata"]["KeyState"] != "PendingDeletion"
            and k["KeyMetadata"]["KeyManager"] == "CUSTOMER"
        ],
        "log groups": [group["logGroupName"] for group in logs],
        "repositories": [repository["repositoryName"] for repository in repositories],
        "roles": [role["RoleName"] for role in layer.client("iam").list_roles()["Roles"]],
        "route tables": [
            t["RouteTableId"] for t in tables if not any(a["Main"] for a in t["Associations"])
        ],
        "templates": [template["LaunchTemplateName"] for template in templates],
        "vpcs": vpcs,
    }


def _live_gateways(ec2: Any) -> list[dict[str, Any]]:
    gateways = ec2.describe_nat_gateways()["NatGateways"]
    return [gateway for gateway in gateways if gateway["State"] != "deleted"]
