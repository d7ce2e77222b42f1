"""What the AWS provider's tables make of networks, clusters, roles, registries and log groups."""

from __future__ import annotations

import json
import threading
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from infra.local.adapters.aws_provider import (
    capacity,
    checking,
    ec2,
    ecr,
    eks,
    iam,
    launch_template,
    logs,
    security_group,
)
from infra.local.adapters.aws_provider.mapping import (
    PREVIOUS,
    Field,
    Spec,
    live_input,
    narrowed,
    properties_from,
    request_of,
)
from infra.local.adapters.aws_provider.mapping import Call as AwsCall
from infra.local.adapters.aws_provider.provider import SPECS, UNSIMULATED, UNTOLD, AwsProvider
from infra.local.adapters.aws_provider.resource import TableResource
from infra.local.adapters.aws_provider.unsimulated import UnsimulatedResource
from infra.local.adapters.property_values import UNKNOWN, Properties
from infra.local.adapters.provider_base import Call, ProviderError

SESSION = botocore.session.Session()
REGION = "eu-central-1"


def validated(spec: Spec, aws_call: AwsCall, properties: Properties) -> Any:
    """The request of a call, which AWS's service model accepts."""
    request = request_of(spec, aws_call, properties)
    model = SESSION.get_service_model(spec.service)
    shape = checking.input_shape(model, aws_call.operation)
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    return request


def updating(spec: Spec, name: str) -> list[AwsCall]:
    return [aws_call for aws_call in spec.updates if name in aws_call.carries]


class Recorder(TableResource):
    """A resource of which the calls are noted, and not made."""

    def __init__(self, spec: Spec, provider: AwsProvider) -> None:
        super().__init__(spec, provider)
        self.requests: list[tuple[str, Any]] = []

    def _do(self, where: str, aws_call: AwsCall, properties: Properties) -> dict[str, Any]:
        del where
        if request_of(self.spec, aws_call, properties) is not None:
            request = validated(self.spec, aws_call, properties)
            self.requests.append((aws_call.operation, request))
        return {}

    def _wait(self, where: str, aws_call: AwsCall, properties: Properties) -> None:
        del where, properties
        if aws_call.waiter:
            self.requests.append(("wait", aws_call.waiter))

    def _found(self, where: str, properties: Properties) -> Properties:
        del where
        return properties


@pytest.fixture
def provider() -> AwsProvider:
    """A provider of an account that is known, with a local server that nobody asks."""
    provider = AwsProvider()
    services = ("ec2", "ecr", "eks", "iam", "logs", "sts")
    provider.configure(
        {
            "region": REGION,
            "accessKey": "key",
            "secretKey": "secret",
            "endpoints": json.dumps([dict.fromkeys(services, "http://127.0.0.1:1")]),
            "skipCredentialsValidation": "true",
        }
    )
    provider._account = "123456789012"
    return provider


def call(spec: Spec, said: list[str] | None = None) -> Call:
    def log(severity: str, text: str, ephemeral: bool) -> None:
        del severity, ephemeral
        if said is not None:
            said.append(text)

    return Call(
        urn=f"urn:pulumi:test::project::{spec.type}::voices",
        type=spec.type,
        name="voices",
        cancelled=threading.Event(),
        log=log,
    )


def test_what_the_local_server_does_not_know_or_tell_is_listed() -> None:
    assert UNSIMULATED == (
        "aws:ec2/capacityReservation:CapacityReservation",
        "aws:eks/addon:Addon",
        "aws:eks/accessEntry:AccessEntry",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
    )
    assert UNTOLD == {
        "aws:ec2/natGateway:NatGateway": ("connectivityType",),
        "aws:eks/cluster:Cluster": ("accessConfig", "upgradePolicy", "zonalShiftConfig"),
        "aws:eks/nodeGroup:NodeGroup": ("updateConfig", "nodeRepairConfig"),
    }


def test_every_waiter_asks_with_the_request_of_the_first_reading() -> None:
    for spec in SPECS.values():
        for aws_call in (spec.create, *spec.updates, spec.delete):
            if aws_call.waiter:
                model = SESSION.get_waiter_model(spec.service)
                name = aws_call.waiter.title().replace("_", "")
                assert model.get_waiter(name).operation == spec.reads[0].operation


@pytest.mark.parametrize(
    ("spec", "changeable"),
    [
        (ec2.VPC, {"enableDnsHostnames", "enableDnsSupport"}),
        (ec2.SUBNET, {"mapPublicIpOnLaunch"}),
        (ec2.NAT_GATEWAY, set()),
        (ec2.ROUTE, {"gatewayId", "natGatewayId"}),
        (
            ec2.VPC_ENDPOINT,
            {"policy", "privateDnsEnabled", "routeTableIds", "subnetIds", "securityGroupIds"},
        ),
        (security_group.SECURITY_GROUP, {"namePrefix", "revokeRulesOnDelete"}),
        (
            eks.NODE_GROUP,
            {
                "scalingConfig",
                "labels",
                "taints",
                "launchTemplate",
                "updateConfig",
                "nodeRepairConfig",
                "version",
                "releaseVersion",
                "forceUpdateVersion",
                "nodeGroupNamePrefix",
            },
        ),
        (iam.ROLE_POLICY_ATTACHMENT, set()),
        (
            ecr.REPOSITORY,
            {
                "imageScanningConfiguration",
                "imageTagMutability",
                "imageTagMutabilityExclusionFilters",
                "forceDelete",
            },
        ),
    ],
    ids=lambda value: value.type if isinstance(value, Spec) else "",
)
def test_what_changes_in_place_and_nothing_else(spec: Spec, changeable: set[str]) -> None:
    names = {f.name for f in spec.fields if not f.output}
    assert names - spec.immutable == changeable


NODE_GROUP = {
    "clusterName": "speech",
    "nodeGroupName": "online",
    "nodeRoleArn": "arn:aws:iam::123456789012:role/nodes",
    "subnetIds": ["subnet-a", "subnet-b"],
    "instanceTypes": ["p5.4xlarge", "p5.48xlarge"],
    "scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 0},
    "launchTemplate": {"id": "lt-1", "version": "1"},
    "labels": {"accelerator": "h100", "pool": "day"},
    "taints": [
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"},
        {"key": "workload", "value": "offline", "effect": "NO_SCHEDULE"},
    ],
}


def changes_of(resource: TableResource, old: Properties, new: Properties) -> dict[str, bool]:
    """Paths of an update, and whether each needs a replacement."""
    found = resource.diff(call(resource.spec), "id", old, old, new)
    return {".".join(map(str, path)): path in found.replaces for path in found.changed}


def test_the_order_of_subnets_and_taints_means_nothing_and_that_of_instance_types_does(
    provider: AwsProvider,
) -> None:
    group = TableResource(eks.NODE_GROUP, provider)
    shuffled = {
        **NODE_GROUP,
        "subnetIds": ["subnet-b", "subnet-a"],
        "taints": NODE_GROUP["taints"][::-1],
    }
    assert changes_of(group, NODE_GROUP, shuffled) == {}
    other = {**NODE_GROUP, "subnetIds": ["subnet-b", "subnet-c"]}
    assert changes_of(group, NODE_GROUP, other) == {"subnetIds": True}
    types = {**NODE_GROUP, "instanceTypes": NODE_GROUP["instanceTypes"][::-1]}
    assert set(changes_of(group, NODE_GROUP, types).values()) == {True}
    fewer = {**NODE_GROUP, "taints": NODE_GROUP["taints"][:1]}
    assert changes_of(group, NODE_GROUP, fewer) == {"taints": False}


def test_another_template_is_another_group_and_another_version_of_it_is_not(
    provider: AwsProvider,
) -> None:
    group = TableResource(eks.NODE_GROUP, provider)
    newer = {**NODE_GROUP, "launchTemplate": {"id": "lt-1", "version": "2"}}
    assert changes_of(group, NODE_GROUP, newer) == {"launchTemplate.version": False}
    other = {**NODE_GROUP, "launchTemplate": {"id": "lt-2", "version": "1"}}
    assert changes_of(group, NODE_GROUP, other) == {"launchTemplate.id": True}


def test_labels_and_taints_are_changed_by_what_comes_and_what_goes() -> None:
    taints = [
        {"key": "nvidia.com/gpu", "value": "false", "effect": "NO_SCHEDULE"},
        {"key": "spot", "value": "true", "effect": "NO_EXECUTE"},
    ]
    new = {**NODE_GROUP, "labels": {"accelerator": "h200", "zone": "a"}, "taints": taints}
    properties = {**new, PREVIOUS: NODE_GROUP}
    (labels,) = (c for c in updating(eks.NODE_GROUP, "labels"))
    assert validated(eks.NODE_GROUP, labels, properties)["labels"] == {
        "addOrUpdateLabels": {"accelerator": "h200", "zone": "a"},
        "removeLabels": ["pool"],
    }
    (tainting,) = (c for c in updating(eks.NODE_GROUP, "taints"))
    assert validated(eks.NODE_GROUP, tainting, properties)["taints"] == {
        "addOrUpdateTaints": taints,
        "removeTaints": [NODE_GROUP["taints"][1]],
    }


def test_a_new_template_version_is_asked_for_alone_and_awaited(provider: AwsProvider) -> None:
    group = Recorder(eks.NODE_GROUP, provider)
    outputs = {**NODE_GROUP, "version": "1.35", "releaseVersion": "1.35.1-20261101"}
    new = {**NODE_GROUP, "launchTemplate": {"id": "lt-1", "version": "2"}}
    group.update(call(eks.NODE_GROUP), "speech:online", NODE_GROUP, outputs, new)
    assert group.requests == [
        (
            "UpdateNodegroupVersion",
            {
                "clusterName": "speech",
                "nodegroupName": "online",
                "launchTemplate": {"id": "lt-1", "version": "2"},
                "force": False,
            },
        ),
        ("wait", "nodegroup_active"),
    ]


def test_a_version_is_forced_only_where_it_changes(provider: AwsProvider) -> None:
    group = Recorder(eks.NODE_GROUP, provider)
    forced = {**NODE_GROUP, "forceUpdateVersion": True}
    group.update(call(eks.NODE_GROUP), "speech:online", NODE_GROUP, NODE_GROUP, forced)
    assert [operation for operation, _ in group.requests if operation != "wait"] == []
    newer = {**forced, "version": "1.36"}
    group.update(call(eks.NODE_GROUP), "speech:online", forced, forced, newer)
    (request,) = (r for operation, r in group.requests if operation != "wait")
    assert request["force"] is True
    assert request["version"] == "1.36"


def test_each_kind_of_change_is_a_call_of_its_own_and_awaited(provider: AwsProvider) -> None:
    group = Recorder(eks.NODE_GROUP, provider)
    scaling = {"minSize": 0, "maxSize": 8, "desiredSize": 0}
    new = {**NODE_GROUP, "scalingConfig": scaling, "labels": {"accelerator": "h100"}}
    group.update(call(eks.NODE_GROUP), "speech:online", NODE_GROUP, NODE_GROUP, new)
    place = {"clusterName": "speech", "nodegroupName": "online"}
    assert group.requests == [
        ("UpdateNodegroupConfig", {**place, "scalingConfig": scaling}),
        ("wait", "nodegroup_active"),
        ("UpdateNodegroupConfig", {**place, "labels": {"removeLabels": ["pool"]}}),
        ("wait", "nodegroup_active"),
    ]


CLUSTER = {
    "name": "speech",
    "roleArn": "arn:aws:iam::123456789012:role/cluster",
    "vpcConfig": {
        "subnetIds": ["subnet-a", "subnet-b"],
        "endpointPrivateAccess": True,
        "endpointPublicAccess": True,
        "publicAccessCidrs": ["198.51.100.0/24"],
    },
    "enabledClusterLogTypes": ["audit", "api"],
}


def network_requests(provider: AwsProvider, **changed: Any) -> list[Any]:
    cluster = Recorder(eks.CLUSTER, provider)
    told = {**CLUSTER["vpcConfig"], "clusterSecurityGroupId": "sg-1", "vpcId": "vpc-1"}
    outputs = {**CLUSTER, "vpcConfig": told}
    new = {**CLUSTER, "vpcConfig": {**CLUSTER["vpcConfig"], **changed}}
    cluster.update(call(eks.CLUSTER), "speech", CLUSTER, outputs, new)
    return [r["resourcesVpcConfig"] for o, r in cluster.requests if o == "UpdateClusterConfig"]


def test_a_clusters_addresses_and_subnets_change_in_different_calls(provider: AwsProvider) -> None:
    access = {"endpointPrivateAccess": True, "endpointPublicAccess": True}
    cidrs = {"publicAccessCidrs": ["203.0.113.0/24"]}
    subnets = {"subnetIds": ["subnet-a", "subnet-c"]}
    assert network_requests(provider, **cidrs) == [{**access, **cidrs}]
    assert network_requests(provider, **subnets) == [subnets]
    assert network_requests(provider, **cidrs, **subnets) == [{**access, **cidrs}, subnets]


def test_log_types_that_are_not_enabled_are_disabled() -> None:
    (changing,) = updating(eks.CLUSTER, "enabledClusterLogTypes")
    request = validated(eks.CLUSTER, changing, CLUSTER)
    enabled, disabled = request["logging"]["clusterLogging"]
    assert enabled == {"types": ["audit", "api"], "enabled": True}
    assert disabled["enabled"] is False
    assert sorted(disabled["types"]) == ["authenticator", "controllerManager", "scheduler"]
    told = properties_from(eks.CLUSTER, eks.CLUSTER.reads[0], {"cluster": request})
    assert told["enabledClusterLogTypes"] == ["audit", "api"]


def test_what_aws_sets_inside_a_property_is_an_output_and_no_input(provider: AwsProvider) -> None:
    cluster = TableResource(eks.CLUSTER, provider)
    before = cluster.preview_create(call(eks.CLUSTER), CLUSTER)
    assert before["vpcConfig"]["clusterSecurityGroupId"] is UNKNOWN
    assert before["certificateAuthority"] is UNKNOWN
    told = {**CLUSTER["vpcConfig"], "clusterSecurityGroupId": "sg-1", "vpcId": "vpc-1"}
    outputs = {**CLUSTER, "vpcConfig": told, "version": "1.35"}
    new = {**CLUSTER, "tags": {"team": "speech"}}
    after = cluster.preview_update(call(eks.CLUSTER), "speech", CLUSTER, outputs, new)
    assert after["vpcConfig"]["clusterSecurityGroupId"] == "sg-1"
    stated = {**CLUSTER, "vpcConfig": told}
    model = SESSION.get_service_model("eks")
    assert (
        "is no property"
        in dict(checking.problems(eks.CLUSTER, model, stated))["vpcConfig.clusterSecurityGroupId"]
    )


def test_what_is_not_told_is_no_drift_and_what_is_told_otherwise_is() -> None:
    (policy,) = (f for f in eks.CLUSTER.fields if f.name == "upgradePolicy")
    stated = {"supportType": "STANDARD"}
    assert live_input(policy, None, stated, importing=False) == stated
    other = {"supportType": "EXTENDED"}
    assert live_input(policy, other, stated, importing=False) == other
    told = Field("upgradePolicy", fields=policy.fields)
    assert live_input(told, None, stated, importing=False) is None


def test_of_a_list_only_the_resources_own_item_counts() -> None:
    routes = [
        {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"},
        {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"},
    ]
    response = {"RouteTables": [{"RouteTableId": "rtb-1", "Routes": routes}]}
    properties = {"routeTableId": "rtb-1", "destinationCidrBlock": "0.0.0.0/0"}
    (reading,) = ec2.ROUTE.reads
    found = narrowed(reading, response, properties)
    assert properties_from(ec2.ROUTE, reading, found) == {"natGatewayId": "nat-1"}
    assert not ec2.ROUTE.gone(found)
    elsewhere = {**properties, "destinationCidrBlock": "192.0.2.0/24"}
    assert ec2.ROUTE.gone(narrowed(reading, response, elsewhere))
    assert ec2.ROUTE.gone(narrowed(reading, {"RouteTables": []}, properties))


def test_lists_of_an_endpoint_change_by_what_comes_and_what_goes(provider: AwsProvider) -> None:
    endpoint = Recorder(ec2.VPC_ENDPOINT, provider)
    old = {
        "vpcId": "vpc-1",
        "serviceName": "com.amazonaws.eu-central-1.ecr.api",
        "vpcEndpointType": "Interface",
        "subnetIds": ["subnet-a", "subnet-b"],
        "securityGroupIds": ["sg-1"],
    }
    new = {**old, "subnetIds": ["subnet-c", "subnet-a"]}
    endpoint.update(call(ec2.VPC_ENDPOINT), "vpce-1", old, {**old, "id": "vpce-1"}, new)
    changes = {"AddSubnetIds": ["subnet-c"], "RemoveSubnetIds": ["subnet-b"]}
    assert endpoint.requests == [("ModifyVpcEndpoint", {"VpcEndpointId": "vpce-1", **changes})]


def test_tags_go_to_ec2_with_the_kind_of_what_is_created() -> None:
    properties = {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/20"}
    create = ec2.SUBNET.create
    tagged = validated(ec2.SUBNET, create, {**properties, "tags": {"team": "speech"}})
    assert tagged["TagSpecifications"] == [
        {"ResourceType": "subnet", "Tags": [{"Key": "team", "Value": "speech"}]}
    ]
    assert "TagSpecifications" not in validated(ec2.SUBNET, create, properties)


def test_a_rules_description_belongs_to_what_the_rule_is_about() -> None:
    rule = {"securityGroupId": "sg-1", "ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
    described = {**rule, "cidrIpv4": "10.0.0.0/16", "description": "the VPC"}
    (permission,) = validated(
        security_group.INGRESS_RULE, security_group.INGRESS_RULE.create, described
    )["IpPermissions"]
    assert permission["IpRanges"] == [{"CidrIp": "10.0.0.0/16", "Description": "the VPC"}]
    by_group = {**rule, "referencedSecurityGroupId": "sg-2", "description": "nodes"}
    (permission,) = validated(
        security_group.EGRESS_RULE, security_group.EGRESS_RULE.create, by_group
    )["IpPermissions"]
    assert permission["UserIdGroupPairs"] == [{"GroupId": "sg-2", "Description": "nodes"}]


def permissions(spec: Spec, properties: Properties) -> list[Any]:
    return validated(spec, spec.create, properties)["IpPermissions"]


TEMPLATE = {
    "name": "online",
    "updateDefaultVersion": True,
    "blockDeviceMappings": [
        {"deviceName": "/dev/xvda", "ebs": {"volumeSize": 200, "encrypted": "true"}}
    ],
}


def test_a_change_of_a_template_makes_a_version_whose_number_is_not_known_before(
    provider: AwsProvider,
) -> None:
    spec = launch_template.LAUNCH_TEMPLATE
    template = Recorder(spec, provider)
    outputs = {**TEMPLATE, "id": "lt-1", "latestVersion": 1, "defaultVersion": 1}
    larger = {"deviceName": "/dev/xvda", "ebs": {"volumeSize": 300, "encrypted": "true"}}
    new = {**TEMPLATE, "blockDeviceMappings": [larger]}
    planned = template.preview_update(call(spec), "lt-1", TEMPLATE, outputs, new)
    assert planned["latestVersion"] is UNKNOWN
    tagged = {**TEMPLATE, "tags": {"team": "speech"}}
    planned = template.preview_update(call(spec), "lt-1", TEMPLATE, outputs, tagged)
    assert planned["latestVersion"] == 1
    template.update(call(spec), "lt-1", TEMPLATE, outputs, new)
    (_, version), (_, default) = template.requests
    (disk,) = version["LaunchTemplateData"]["BlockDeviceMappings"]
    assert disk["Ebs"] == {"VolumeSize": 300, "Encrypted": True}
    assert default == {"LaunchTemplateId": "lt-1", "DefaultVersion": "1"}


def test_a_flag_that_is_a_text_is_true_or_false_and_may_be_a_flag(provider: AwsProvider) -> None:
    spec = launch_template.LAUNCH_TEMPLATE
    template = TableResource(spec, provider)
    flag = {**TEMPLATE, "ebsOptimized": "true"}
    assert changes_of(template, flag, {**flag, "ebsOptimized": True}) == {}
    model = SESSION.get_service_model("ec2")
    problems = dict(checking.problems(spec, model, {**flag, "ebsOptimized": "yes"}))
    assert problems == {"ebsOptimized": "'yes' must be true or false"}


def test_logs_that_are_kept_for_ever_have_no_policy_of_retention(provider: AwsProvider) -> None:
    group = Recorder(logs.LOG_GROUP, provider)
    old = {"name": "/aws/eks/speech/cluster", "retentionInDays": 90}
    new = {"name": "/aws/eks/speech/cluster"}
    group.update(call(logs.LOG_GROUP), old["name"], old, old, new)
    assert group.requests == [("DeleteRetentionPolicy", {"logGroupName": old["name"]})]


def test_a_type_of_the_whole_account_has_no_region(provider: AwsProvider) -> None:
    model = SESSION.get_service_model("iam")
    stated = {"name": "nodes", "assumeRolePolicy": "{}", "region": REGION}
    assert set(dict(checking.problems(iam.ROLE, model, stated))) == {"region"}
    role = TableResource(iam.ROLE, provider)
    assert "region" not in role.preview_create(call(iam.ROLE), {"name": "nodes"})


ASSOCIATION = {
    "clusterName": "speech",
    "namespace": "acme",
    "serviceAccount": "reader",
    "roleArn": "arn:aws:iam::123456789012:role/reader",
}


def test_what_is_not_simulated_is_checked_kept_in_the_state_and_told(provider: AwsProvider) -> None:
    spec = eks.POD_IDENTITY_ASSOCIATION
    resource = provider.resource_type(spec.type)
    assert isinstance(resource, UnsimulatedResource)
    said: list[str] = []
    id_, outputs = resource.create(call(spec, said), ASSOCIATION)
    assert said == [f"not simulated by the local AWS server: eks PodIdentityAssociation {id_}"]
    assert outputs["associationArn"] == (
        f"arn:aws:eks:{REGION}:123456789012:podidentityassociation/speech/{id_}"
    )
    live = resource.read(call(spec), id_, ASSOCIATION, outputs)
    assert live
    assert (live.id, live.inputs, live.outputs) == (id_, ASSOCIATION, outputs)
    new = {**ASSOCIATION, "roleArn": "arn:aws:iam::123456789012:role/writer"}
    changed = resource.update(call(spec, said), id_, ASSOCIATION, outputs, new)
    assert changed == {**outputs, "roleArn": new["roleArn"]}
    assert said[1].startswith("change not simulated by the local AWS server: eks ")
    resource.delete(call(spec), id_, ASSOCIATION, outputs)


def test_what_is_not_simulated_cannot_be_imported(provider: AwsProvider) -> None:
    spec = eks.ADDON
    with pytest.raises(ProviderError, match="cannot be imported"):
        provider.resource_type(spec.type).read(call(spec), "speech:coredns", {}, {})


def test_on_aws_itself_nothing_is_left_out() -> None:
    provider = AwsProvider()
    provider.configure({"region": REGION, "skipCredentialsValidation": "true"})
    spec = eks.POD_IDENTITY_ASSOCIATION
    with pytest.raises(ProviderError, match="install Pulumi's released plugin"):
        provider.resource_type(spec.type).create(call(spec), ASSOCIATION)


@pytest.mark.parametrize(
    ("spec", "inputs", "path", "reason"),
    [
        (eks.ADDON, {"clusterName": "speech"}, "addonName", "is required"),
        (
            eks.ADDON,
            {"resolveConflictsOnUpdate": "FORCE"},
            "resolveConflictsOnUpdate",
            "not one of OVERWRITE, NONE, PRESERVE",
        ),
        (eks.ACCESS_ENTRY, {"principalArn": "admins"}, "principalArn", "must be the ARN"),
        (eks.ACCESS_ENTRY, {"type": "ADMIN"}, "type", "must be STANDARD/"),
        (
            eks.ACCESS_POLICY_ASSOCIATION,
            {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
            "policyArn",
            "must be the ARN of an access policy of EKS",
        ),
        (
            eks.ACCESS_POLICY_ASSOCIATION,
            {"accessScope": {"type": "everything"}},
            "accessScope.type",
            "not one of cluster, namespace",
        ),
        (
            capacity.CAPACITY_RESERVATION,
            {"instanceCount": 0},
            "instanceCount",
            "below the minimum of 1",
        ),
        (
            security_group.SECURITY_GROUP,
            {"ingress": []},
            "ingress",
            "use aws.vpc.SecurityGroupIngressRule",
        ),
        (ec2.ROUTE_TABLE, {"routes": []}, "routes", "use aws.ec2.Route"),
        (iam.ROLE, {"managedPolicyArns": []}, "managedPolicyArns", "aws.iam.RolePolicyAttachment"),
        (eks.NODE_GROUP, {"amiType": "AL2023_NVIDIA"}, "amiType", "not one of AL2_x86_64"),
        (
            eks.NODE_GROUP,
            {"taints": [{"key": "a", "effect": "NoSchedule"}]},
            "taints[0].effect",
            "'NoSchedule' is not one of NO_SCHEDULE",
        ),
        (
            eks.CLUSTER,
            {"enabledClusterLogTypes": ["audits"]},
            "enabledClusterLogTypes",
            "'audits' is not one of api, audit",
        ),
        (eks.CLUSTER, {"vpcConfig": {}}, "vpcConfig.subnetIds", "is required"),
        (ecr.REPOSITORY, {"name": "Speech"}, "name", "must be parts of a-z"),
        (logs.LOG_GROUP, {"retentionInDays": "7"}, "retentionInDays", "Invalid type"),
    ],
)
def test_a_wrong_input_is_named_with_its_path_and_reason(
    spec: Spec, inputs: dict[str, Any], path: str, reason: str
) -> None:
    model = SESSION.get_service_model(spec.service)
    assert reason in dict(checking.problems(spec, model, inputs))[path]
