"""What GPU clusters declare, down to the options: details that are easily lost.

Checks that must not pass by accident are functions of a recording, and are shown one with the
fault in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pytest

from tests.preview.rules import (
    every_component_registers_outputs,
    every_resource_is_the_child_of_a_component,
    every_resource_uses_the_explicit_provider_of_its_package,
)
from voicemesh import (
    AddonVersions,
    ClusterAddons,
    ClusterAddonsArgs,
    GpuCluster,
    GpuClusterArgs,
    GpuNodeGroup,
    GpuNodeGroupArgs,
    NatGateways,
    ReservedCapacity,
    contract,
)
from voicemesh.cluster.addons import REPOSITORIES
from voicemesh.cluster.user_data import node_user_data
from voicemesh.testing import EchoMocks, Recording, Registration, record

CLUSTER = "aws:eks/cluster:Cluster"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
RESERVATION = "aws:ec2/capacityReservation:CapacityReservation"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
NAT = "aws:ec2/natGateway:NatGateway"
ROUTE = "aws:ec2/route:Route"
SUBNET = "aws:ec2/subnet:Subnet"
ADDON = "aws:eks/addon:Addon"
KEY = "aws:kms/key:Key"
LOGS = "aws:cloudwatch/logGroup:LogGroup"
RELEASE = "kubernetes:helm.sh/v3:Release"
NAMESPACE = "kubernetes:core/v1:Namespace"

DEPLOY = "arn:aws:iam::123456789012:role/deploy"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
ARGS = GpuClusterArgs("prod-speech", ZONES, [DEPLOY])
GROUP = partial(GpuNodeGroupArgs, "prod-speech", "arn:aws:iam::123456789012:role/node")
SUBNETS = {zone: f"subnet-{zone}" for zone in ZONES}

MOCKS = EchoMocks(
    {
        "aws:iam/role:Role": {"arn": "arn:aws:iam::123456789012:role/made"},
        KEY: {"arn": "arn:aws:kms:us-east-1:123456789012:key/1"},
        CLUSTER: {"endpoint": "https://api", "certificateAuthority": {"data": "QUFB"}},
        TEMPLATE: {"latestVersion": 7},
    }
)

Rule = Callable[[Recording], Iterator[str]]


def recorded(declare: Callable[[pulumi.ResourceOptions], object]) -> Recording:
    def program() -> None:
        account = aws.Provider("aws", region="us-east-1")
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        # None of these may reach a child, but by its own arguments.
        declare(pulumi.ResourceOptions(providers=[account, cluster], protect=True))

    return record(program, resource_mocks=MOCKS)


def cluster(**changes: Any) -> Recording:
    return recorded(lambda opts: GpuCluster("speech", replace(ARGS, **changes), opts))


def nodes(**arguments: Any) -> Recording:
    args = GROUP(**{"subnets": SUBNETS, "min_size": 1, "max_size": 4, **arguments})
    return recorded(lambda opts: GpuNodeGroup("h100", args, opts))


def charts(**arguments: Any) -> Recording:
    args = ClusterAddonsArgs("prod-speech", "us-east-1", "vpc-1", **arguments)
    return recorded(lambda opts: ClusterAddons("addons", args, opts))


@pytest.fixture(scope="module")
def made() -> Recording:
    return cluster()


@pytest.fixture(scope="module")
def group() -> Recording:
    return nodes()


@pytest.fixture(scope="module")
def released() -> Recording:
    return charts()


def mutated(
    recording: Recording, type_: str, change: Callable[[Registration], Registration]
) -> Any:
    """The recording with each resource of a type changed."""
    registrations = tuple(change(r) if r.type == type_ else r for r in recording.registrations)
    return replace(recording, registrations=registrations)


def with_input(*path: str | int, to: Any) -> Callable[[Registration], Registration]:
    def change(resource: Registration) -> Registration:
        inputs: Any = deepcopy(dict(resource.inputs))
        target = inputs
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = to
        return replace(resource, inputs=inputs)

    return change


# Rules of node groups and clusters, each a function that finds what breaks it.


def the_autoscaler_owns_the_desired_size(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(NODE_GROUP):
        if resource.ignore_changes != ("scalingConfig.desiredSize",):
            yield f"{resource.name} ignores {resource.ignore_changes}"


def taints_are_spelt_as_the_eks_api_spells_them(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(NODE_GROUP):
        for taint in resource.inputs.get("taints", []):
            if taint["effect"] not in ("NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"):
                yield f"{resource.name}: {taint}"


def gpus_stop_before_their_successors_start(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(NODE_GROUP):
        update = resource.inputs.get("updateConfig", {})
        if "NVIDIA" in resource.inputs["amiType"] and update != {
            "maxUnavailable": 1,
            "updateStrategy": "MINIMAL",
        }:
            yield f"{resource.name}: {update}"


def faulty_nodes_are_repaired(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(NODE_GROUP):
        if resource.inputs.get("nodeRepairConfig") != {"enabled": True}:
            yield resource.name


def instances_give_no_credentials_to_pods(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(TEMPLATE):
        metadata = resource.inputs.get("metadataOptions", {})
        if metadata.get("httpTokens") != "required" or metadata["httpPutResponseHopLimit"] != 1:
            yield f"{resource.name}: {metadata}"


def volumes_are_encrypted(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(TEMPLATE):
        for mapping in resource.inputs["blockDeviceMappings"]:
            if mapping["ebs"].get("encrypted") != "true":
                yield resource.name


def the_api_is_private(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(CLUSTER):
        config = resource.inputs["vpcConfig"]
        if config["endpointPublicAccess"] or not config["endpointPrivateAccess"]:
            yield f"{resource.name}: {config}"


def secrets_are_encrypted_with_a_key_of_their_own(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(CLUSTER):
        encryption = resource.inputs.get("encryptionConfig", {})
        if "secrets" not in encryption.get("resources", []):
            yield f"{resource.name}: {encryption}"


def the_version_is_upgraded_on_purpose(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(CLUSTER):
        if resource.inputs.get("upgradePolicy") != {"supportType": "STANDARD"}:
            yield resource.name


def nobody_administers_by_having_created(recording: Recording) -> Iterator[str]:
    for resource in recording.of_type(CLUSTER):
        if resource.inputs.get("accessConfig") != {
            "authenticationMode": "API",
            "bootstrapClusterCreatorAdminPermissions": False,
        }:
            yield resource.name


def all_five_logs_are_kept(recording: Recording) -> Iterator[str]:
    wanted = {"api", "audit", "authenticator", "controllerManager", "scheduler"}
    for resource in recording.of_type(CLUSTER):
        if set(resource.inputs["enabledClusterLogTypes"]) != wanted:
            yield resource.name


def pods_obey_network_policies(recording: Recording) -> Iterator[str]:
    plugin = recording.one(ADDON, "speech-vpc-cni")
    if json.loads(plugin.inputs["configurationValues"]).get("enableNetworkPolicy") != "true":
        yield plugin.name


def what_holds_state_is_protected(recording: Recording) -> Iterator[str]:
    for type_ in (CLUSTER, KEY, LOGS, "aws:ec2/vpc:Vpc", RESERVATION):
        for resource in recording.of_type(type_):
            if not resource.protect:
                yield resource.urn


def nothing_else_is_protected(recording: Recording) -> Iterator[str]:
    stateful = {CLUSTER, KEY, LOGS, "aws:ec2/vpc:Vpc", RESERVATION}
    for resource in recording.registrations:
        if resource.custom and resource.protect and resource.type not in stateful:
            yield resource.urn


def without_ignored(resource: Registration) -> Registration:
    return replace(resource, ignore_changes=("scaling_config.desired_size",))


MUTATIONS: list[tuple[Rule, str, Callable[[Registration], Registration]]] = [
    (the_autoscaler_owns_the_desired_size, NODE_GROUP, without_ignored),
    (
        gpus_stop_before_their_successors_start,
        NODE_GROUP,
        with_input("updateConfig", to={"maxUnavailable": 1}),
    ),
    (faulty_nodes_are_repaired, NODE_GROUP, with_input("nodeRepairConfig", to={})),
    (
        instances_give_no_credentials_to_pods,
        TEMPLATE,
        with_input("metadataOptions", "httpTokens", to="optional"),
    ),
    (
        instances_give_no_credentials_to_pods,
        TEMPLATE,
        with_input("metadataOptions", "httpPutResponseHopLimit", to=2),
    ),
    (
        volumes_are_encrypted,
        TEMPLATE,
        with_input("blockDeviceMappings", 0, "ebs", "encrypted", to="false"),
    ),
    (the_api_is_private, CLUSTER, with_input("vpcConfig", "endpointPublicAccess", to=True)),
    (
        secrets_are_encrypted_with_a_key_of_their_own,
        CLUSTER,
        with_input("encryptionConfig", "resources", to=[]),
    ),
    (
        the_version_is_upgraded_on_purpose,
        CLUSTER,
        with_input("upgradePolicy", "supportType", to="EXTENDED"),
    ),
    (
        nobody_administers_by_having_created,
        CLUSTER,
        with_input("accessConfig", "bootstrapClusterCreatorAdminPermissions", to=True),
    ),
    (all_five_logs_are_kept, CLUSTER, with_input("enabledClusterLogTypes", to=["api"])),
    (
        pods_obey_network_policies,
        ADDON,
        with_input("configurationValues", to='{"enableNetworkPolicy": "false"}'),
    ),
    (what_holds_state_is_protected, CLUSTER, lambda r: replace(r, protect=False)),
    (what_holds_state_is_protected, KEY, lambda r: replace(r, protect=False)),
    (nothing_else_is_protected, NODE_GROUP, lambda r: replace(r, protect=True)),
]

TAINTED: tuple[Rule, str, Callable[[Registration], Registration]] = (
    taints_are_spelt_as_the_eks_api_spells_them,
    NODE_GROUP,
    with_input("taints", 0, "effect", to="NoSchedule"),
)
EVERYWHERE: list[Rule] = [
    every_resource_is_the_child_of_a_component,
    every_component_registers_outputs,
    every_resource_uses_the_explicit_provider_of_its_package,
    nothing_else_is_protected,
]


def everything() -> Recording:
    """A cluster, its nodes and its charts, as a program declares them."""

    def declare(opts: pulumi.ResourceOptions) -> None:
        speech = GpuCluster("speech", ARGS, opts)
        GpuNodeGroup(
            "h100",
            GpuNodeGroupArgs(
                speech.cluster_name,
                speech.node_role_arn,
                speech.private_subnets,
                min_size=1,
                max_size=4,
                availability_zones=ZONES[:1],
                reservation=ReservedCapacity(instance_count=4),
            ),
            opts,
        )
        args = ClusterAddonsArgs(speech.cluster_name, speech.region, speech.vpc_id)
        ClusterAddons("addons", args, opts)

    return recorded(declare)


@pytest.fixture(scope="module")
def whole() -> Recording:
    return everything()


@pytest.mark.parametrize("rule", [*EVERYWHERE, *dict.fromkeys(m[0] for m in [*MUTATIONS, TAINTED])])
def test_cluster_nodes_and_charts_keep_each_rule(whole: Recording, rule: Rule) -> None:
    assert list(rule(whole)) == []


@pytest.mark.parametrize(("rule", "type_", "change"), [*MUTATIONS, TAINTED])
def test_each_rule_notices_what_it_is_for(
    whole: Recording,
    rule: Rule,
    type_: str,
    change: Callable[[Registration], Registration],
) -> None:
    if rule is taints_are_spelt_as_the_eks_api_spells_them:
        tainted = tuple(r for r in whole.registrations if r.inputs.get("taints"))
        whole = replace(whole, registrations=tainted)
    assert list(rule(mutated(whole, type_, change)))


class TestNetwork:
    def test_nodes_are_private_and_each_zone_leaves_through_its_own_gateway(
        self, made: Recording
    ) -> None:
        assert len(made.of_type(NAT)) == len(ZONES)
        for zone in ZONES:
            route = made.one(ROUTE, f"speech-private-{zone}").inputs
            assert route["natGatewayId"] == f"speech-nat-{zone}-id"
            assert "gatewayId" not in route

    def test_one_gateway_can_serve_all_zones(self) -> None:
        recording = cluster(nat_gateways=NatGateways.ONE)
        (gateway,) = recording.of_type(NAT)
        used = {
            recording.one(ROUTE, f"speech-private-{zone}").inputs["natGatewayId"] for zone in ZONES
        }
        assert used == {f"{gateway.name}-id"}

    def test_load_balancers_find_their_subnets_by_role(self, made: Recording) -> None:
        roles = {
            subnet.name: [t for t in subnet.inputs["tags"] if t.startswith("kubernetes.io/role/")]
            for subnet in made.of_type(SUBNET)
        }
        for zone in ZONES:
            assert roles[f"speech-private-{zone}"] == ["kubernetes.io/role/internal-elb"]
            assert roles[f"speech-public-{zone}"] == ["kubernetes.io/role/elb"]

    def test_no_instance_gets_a_public_address(self, made: Recording) -> None:
        assert not any(s.inputs["mapPublicIpOnLaunch"] for s in made.of_type(SUBNET))

    def test_aws_services_are_reached_inside_the_vpc(self, made: Recording) -> None:
        services = {
            endpoint.inputs["serviceName"]: endpoint.inputs["vpcEndpointType"]
            for endpoint in made.of_type(ENDPOINT)
        }
        interfaces = ["ecr.api", "ecr.dkr", "sts", "ec2", "eks", "eks-auth", "logs", "kms"]
        assert services == {
            "com.amazonaws.us-east-1.s3": "Gateway",
            **{f"com.amazonaws.us-east-1.{name}": "Interface" for name in interfaces},
        }
        rule = made.one("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule").inputs
        assert (rule["cidrIpv4"], rule["fromPort"], rule["toPort"]) == ("10.0.0.0/16", 443, 443)

    def test_without_interface_endpoints_only_the_free_one_is_left(self) -> None:
        recording = cluster(interface_endpoints=[])
        (endpoint,) = recording.of_type(ENDPOINT)
        assert endpoint.inputs["serviceName"] == "com.amazonaws.us-east-1.s3"
        assert len(endpoint.inputs["routeTableIds"]) == len(ZONES)
        assert not recording.of_type("aws:ec2/securityGroup:SecurityGroup")


class TestCluster:
    def test_the_api_is_public_only_for_given_addresses(self) -> None:
        recording = cluster(public_access_cidrs=["198.51.100.0/24"])
        config = recording.one(CLUSTER).inputs["vpcConfig"]
        assert config["endpointPublicAccess"] is True
        assert config["endpointPrivateAccess"] is True
        assert config["publicAccessCidrs"] == ["198.51.100.0/24"]

    def test_the_log_group_is_there_before_eks_would_make_one_kept_for_ever(
        self, made: Recording
    ) -> None:
        logs = made.one(LOGS)
        assert logs.inputs["name"] == "/aws/eks/prod-speech/cluster"
        assert logs.inputs["retentionInDays"] == 90
        assert logs.inputs["kmsKeyId"] == "arn:aws:kms:us-east-1:123456789012:key/1"
        assert logs.urn in made.one(CLUSTER).depends_on

    def test_nodes_wait_for_network_plugin_identities_and_routes(self, made: Recording) -> None:
        waits = made.one(NODE_GROUP).depends_on
        before = {urn.rsplit("::", 1)[1] for urn in waits}
        plugins = {"speech-vpc-cni", "speech-kube-proxy", "speech-eks-pod-identity-agent"}
        assert before >= {*plugins, *(f"speech-private-{zone}" for zone in ZONES)}
        assert before >= {"speech-node-AmazonEKSWorkerNodePolicy", "speech-ecr.dkr"}

    def test_node_repair_learns_of_gpus_on_every_node_whatever_its_taints(
        self, made: Recording
    ) -> None:
        agent = made.one(ADDON, "speech-eks-node-monitoring-agent").inputs
        settings = json.loads(agent["configurationValues"])
        assert settings == {"dcgmAgent": {"tolerations": [{"operator": "Exists"}]}}

    @pytest.mark.parametrize("addon", ["coredns", "metrics-server", "eks-node-monitoring-agent"])
    def test_what_needs_nodes_waits_for_them(self, made: Recording, addon: str) -> None:
        assert made.one(NODE_GROUP).urn in made.one(ADDON, f"speech-{addon}").depends_on

    def test_add_ons_are_eks_own_and_pinned_where_asked(self) -> None:
        recording = cluster(addon_versions={"coredns": "v1.12.4-eksbuild.1"})
        assert recording.one(CLUSTER).inputs["bootstrapSelfManagedAddons"] is False
        coredns = recording.one(ADDON, "speech-coredns").inputs
        assert coredns["addonVersion"] == "v1.12.4-eksbuild.1"
        assert "addonVersion" not in recording.one(ADDON, "speech-vpc-cni").inputs

    def test_nodes_may_pull_images_and_no_more(self, made: Recording) -> None:
        attached = {
            a.inputs["policyArn"].rsplit("/", 1)[1]
            for a in made.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
            if a.name.startswith("speech-node-")
        }
        assert attached == {"AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"}

    def test_the_network_plugin_has_its_rights_by_pod_identity(self, made: Recording) -> None:
        (identity,) = made.one(ADDON, "speech-vpc-cni").inputs["podIdentityAssociations"]
        assert identity["serviceAccount"] == "aws-node"
        attached = made.one(
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment", "speech-network-plugin"
        )
        assert attached.inputs["policyArn"].endswith("/AmazonEKS_CNI_Policy")

    def test_administrators_keep_their_entries_when_others_come_or_go(self) -> None:
        other = "arn:aws:iam::123456789012:role/on-call"
        type_ = "aws:eks/accessEntry:AccessEntry"
        both = cluster(administrators=[other, DEPLOY]).of_type(type_)
        one = cluster(administrators=[DEPLOY]).of_type(type_)
        assert len(both) == 2
        assert {entry.urn for entry in one} < {entry.urn for entry in both}

    def test_each_administrator_has_the_whole_cluster(self, made: Recording) -> None:
        policy = made.one("aws:eks/accessPolicyAssociation:AccessPolicyAssociation").inputs
        assert policy["policyArn"].endswith(":cluster-access-policy/AmazonEKSClusterAdminPolicy")
        assert policy["principalArn"] == DEPLOY
        assert policy["accessScope"] == {"type": "cluster"}

    def test_a_cluster_may_be_given_up_where_its_owner_says_so(self) -> None:
        recording = cluster(deletion_protection=False)
        assert not any(r.protect for r in recording.registrations if r.custom)
        assert recording.one(CLUSTER).inputs["deletionProtection"] is False

    def test_controllers_find_the_roles_of_their_service_accounts(self, made: Recording) -> None:
        identities = {
            (i.inputs["namespace"], i.inputs["serviceAccount"])
            for i in made.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
        }
        values = {r.inputs["name"]: r.inputs["values"] for r in charts().of_type(RELEASE)}
        balancing = values[contract.LOAD_BALANCER_CONTROLLER]["serviceAccount"]["name"]
        scaling = values[contract.CLUSTER_AUTOSCALER]["rbac"]["serviceAccount"]["name"]
        namespace = contract.CONTROLLER_NAMESPACE
        assert identities == {(namespace, balancing), (namespace, scaling)}

    def test_the_kubeconfig_is_secret_and_waits_until_pods_can_run(self) -> None:
        def declare(opts: pulumi.ResourceOptions) -> None:
            made = GpuCluster("speech", ARGS, opts)
            kubernetes.Provider("of-speech", kubeconfig=made.kubeconfig)

        provider = recorded(declare).one("pulumi:providers:kubernetes", "of-speech")
        assert "kubeconfig" in provider.secret_paths
        waits = {urn.rsplit("::", 1)[1] for urn in provider.depends_on}
        assert waits >= {"speech-system", "speech-coredns", "speech-aws-load-balancer-controller"}
        assert json.loads(provider.inputs["kubeconfig"])["current-context"] == "prod-speech"

    def test_system_nodes_are_in_all_zones_and_take_all_pods(self, made: Recording) -> None:
        system = made.one(NODE_GROUP).inputs
        assert len(system["subnetIds"]) == len(ZONES)
        assert "taints" not in system
        assert system["version"] == "1.35"


class TestNodeGroup:
    def test_the_group_is_as_small_as_allowed_at_first(self, group: Recording) -> None:
        scaling = group.one(NODE_GROUP).inputs["scalingConfig"]
        assert scaling == {"minSize": 1, "maxSize": 4, "desiredSize": 1}

    def test_pods_and_eks_see_the_same_taints_each_in_its_own_words(self) -> None:
        recording = nodes(node_type=contract.OFFLINE_NODE_TYPE)
        told = recording.one("voicemesh:index:GpuNodeGroup").outputs
        assert told is not None
        sent = recording.one(NODE_GROUP).inputs["taints"]
        assert [(t["key"], t["value"]) for t in sent] == [
            ("nvidia.com/gpu", "true"),
            ("workload", "offline"),
        ]
        assert {t["effect"] for t in sent} == {"NO_SCHEDULE"}
        assert told["taints"] == [{**t, "effect": "NoSchedule"} for t in sent]
        assert told["labels"] == recording.one(NODE_GROUP).inputs["labels"]

    def test_nodes_run_amazons_image_with_nvidias_driver(self, group: Recording) -> None:
        made = group.one(NODE_GROUP).inputs
        assert made["amiType"] == "AL2023_x86_64_NVIDIA"
        assert made["instanceTypes"] == ["p5.4xlarge"]
        assert made["launchTemplate"] == {"id": "h100-id", "version": "7"}

    def test_nodes_take_all_zones_unless_some_are_chosen(self, group: Recording) -> None:
        assert group.one(NODE_GROUP).inputs["subnetIds"] == list(SUBNETS.values())
        some = nodes(availability_zones=ZONES[1:])
        assert some.one(NODE_GROUP).inputs["subnetIds"] == [SUBNETS[zone] for zone in ZONES[1:]]

    def test_reserved_nodes_are_in_the_zone_of_their_reservation_only(self) -> None:
        recording = nodes(
            availability_zones=["us-east-1b"], reservation=ReservedCapacity(instance_count=4)
        )
        reservation = recording.one(RESERVATION)
        assert reservation.inputs["availabilityZone"] == "us-east-1b"
        assert reservation.inputs["instanceCount"] == 4
        assert reservation.inputs["instanceMatchCriteria"] == "targeted"
        assert recording.one(NODE_GROUP).inputs["subnetIds"] == [SUBNETS["us-east-1b"]]
        assert reserved_by(recording) == "h100-id"

    def test_an_existing_reservation_is_used_and_none_is_made(self) -> None:
        existing = ReservedCapacity("cr-0123456789abcdef0")
        recording = nodes(availability_zones=["us-east-1b"], reservation=existing)
        assert not recording.of_type(RESERVATION)
        assert reserved_by(recording) == "cr-0123456789abcdef0"

    def test_without_a_reservation_instances_come_from_what_ec2_has(self, group: Recording) -> None:
        assert not group.of_type(RESERVATION)
        assert "capacityReservationSpecification" not in group.one(TEMPLATE).inputs

    def test_a_reservation_may_be_given_back_where_its_owner_says_so(self) -> None:
        reserve = ReservedCapacity(instance_count=4)
        kept = nodes(availability_zones=ZONES[:1], reservation=reserve)
        given = nodes(availability_zones=ZONES[:1], reservation=reserve, deletion_protection=False)
        assert kept.one(RESERVATION).protect is True
        assert given.one(RESERVATION).protect is False

    def test_gpu_nodes_have_the_time_that_they_need(self, group: Recording) -> None:
        timeouts = group.one(NODE_GROUP).custom_timeouts
        assert timeouts == {"create": "60m", "update": "6h", "delete": "60m"}

    @pytest.mark.parametrize(("profile", "slices"), [(None, 0), ("1g.20gb", 4), ("3g.40gb", 2)])
    def test_nodes_start_with_the_slices_that_their_labels_promise(
        self, profile: str | None, slices: int
    ) -> None:
        recording = nodes(mig_profile=profile)
        sent = base64.b64decode(recording.one(TEMPLATE).inputs["userData"]).decode()
        assert sent == node_user_data(profile, slices)
        told = recording.one("voicemesh:index:GpuNodeGroup").outputs
        assert told is not None
        assert told["gpu_resources_per_node"] == (slices or 1)

    def test_instances_and_volumes_carry_the_tags(self) -> None:
        recording = nodes(tags={"team": "speech"})
        for specification in recording.one(TEMPLATE).inputs["tagSpecifications"]:
            assert specification["tags"] == {"team": "speech", "Name": "h100"}


class TestCharts:
    def test_each_chart_is_pinned_and_comes_from_its_makers_repository(
        self, released: Recording
    ) -> None:
        found = {
            r.inputs["chart"]: (r.inputs["version"], r.inputs["repositoryOpts"]["repo"])
            for r in released.of_type(RELEASE)
        }
        versions = AddonVersions()
        assert found == {
            "nvidia-device-plugin": (
                versions.nvidia_device_plugin,
                REPOSITORIES["nvidia-device-plugin"],
            ),
            "dcgm-exporter": (versions.dcgm_exporter, REPOSITORIES["dcgm-exporter"]),
            "aws-load-balancer-controller": (
                versions.load_balancer_controller,
                REPOSITORIES["aws-load-balancer-controller"],
            ),
            "cluster-autoscaler": (
                versions.cluster_autoscaler,
                REPOSITORIES["cluster-autoscaler"],
            ),
        }

    def test_a_version_can_be_chosen(self) -> None:
        chosen = charts(versions=AddonVersions(dcgm_exporter="4.9.0"))
        assert chosen.one(RELEASE, "addons-dcgm-exporter").inputs["version"] == "4.9.0"

    def test_only_what_reads_the_nodes_devices_is_privileged(self, released: Recording) -> None:
        levels = {
            n.inputs["metadata"]["name"]: n.inputs["metadata"]["labels"][
                "pod-security.kubernetes.io/enforce"
            ]
            for n in released.of_type(NAMESPACE)
        }
        assert levels == {"gpu-system": "privileged", "cluster-controllers": "restricted"}
        inside = {r.inputs["chart"]: r.inputs["namespace"] for r in released.of_type(RELEASE)}
        assert inside == {
            "nvidia-device-plugin": "gpu-system",
            "dcgm-exporter": "gpu-system",
            "aws-load-balancer-controller": "cluster-controllers",
            "cluster-autoscaler": "cluster-controllers",
        }

    @pytest.mark.parametrize("chart", ["nvidia-device-plugin", "dcgm-exporter"])
    @pytest.mark.parametrize("node_type", [contract.ONLINE_NODE_TYPE, contract.OFFLINE_NODE_TYPE])
    def test_gpus_are_served_and_measured_on_all_gpu_nodes(
        self, released: Recording, chart: str, node_type: str
    ) -> None:
        values = chart_values(released, chart)
        told = nodes(node_type=node_type).one("voicemesh:index:GpuNodeGroup").outputs
        assert told is not None
        assert all(tolerated(values["tolerations"], taint) for taint in told["taints"])
        assert values.get("nodeSelector", {}).items() <= told["labels"].items()
        # The label by which the device plugin's chart chooses nodes.
        assert told["labels"]["nvidia.com/gpu.present"] == "true"

    def test_a_toleration_of_the_gpu_alone_would_miss_offline_nodes(self) -> None:
        gpu_only = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        told = nodes(node_type=contract.OFFLINE_NODE_TYPE).one("voicemesh:index:GpuNodeGroup")
        assert told.outputs is not None
        assert not all(tolerated(gpu_only, taint) for taint in told.outputs["taints"])

    def test_slices_have_resources_of_their_own(self, released: Recording) -> None:
        assert chart_values(released, "nvidia-device-plugin")["migStrategy"] == "mixed"

    def test_no_chart_needs_the_operator_of_prometheus(self, released: Recording) -> None:
        values = chart_values(released, "dcgm-exporter")
        assert values["serviceMonitor"] == {"enabled": False}
        assert "customMetrics" not in values

    def test_the_load_balancer_controller_does_not_ask_the_instance_where_it_is(
        self, released: Recording
    ) -> None:
        values = chart_values(released, "aws-load-balancer-controller")
        assert (values["clusterName"], values["region"], values["vpcId"]) == (
            "prod-speech",
            "us-east-1",
            "vpc-1",
        )

    def test_services_can_be_made_while_the_load_balancer_controller_restarts(
        self, released: Recording
    ) -> None:
        values = chart_values(released, "aws-load-balancer-controller")
        assert values["enableServiceMutatorWebhook"] is False

    def test_the_autoscaler_finds_the_groups_of_this_cluster(self, released: Recording) -> None:
        values = chart_values(released, "cluster-autoscaler")
        assert values["autoDiscovery"] == {"clusterName": "prod-speech"}
        assert values["awsRegion"] == "us-east-1"

    def test_the_autoscaler_gives_back_only_idle_gpus(self, released: Recording) -> None:
        arguments = chart_values(released, "cluster-autoscaler")["extraArgs"]
        # One slice of the largest node is 1/56; 0 would keep even idle nodes.
        assert 0 < float(arguments["scale-down-gpu-utilization-threshold"]) < 1 / 56

    @pytest.mark.parametrize("chart", ["aws-load-balancer-controller", "cluster-autoscaler"])
    def test_controllers_meet_the_restricted_standard(
        self, released: Recording, chart: str
    ) -> None:
        values = chart_values(released, chart)
        container = values.get("containerSecurityContext", values["securityContext"])
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
        assert container["runAsNonRoot"] is True
        assert container["seccompProfile"] == {"type": "RuntimeDefault"}


def reserved_by(recording: Recording) -> str:
    specification = recording.one(TEMPLATE).inputs["capacityReservationSpecification"]
    return specification["capacityReservationTarget"]["capacityReservationId"]


def chart_values(recording: Recording, chart: str) -> Mapping[str, Any]:
    return recording.one(RELEASE, f"addons-{chart}").inputs["values"]


def tolerated(tolerations: Sequence[Mapping[str, str]], taint: Mapping[str, str]) -> bool:
    """As the scheduler decides, for the forms in use here."""
    return any(
        toleration.get("key") in (None, taint["key"])
        and toleration.get("effect") in (None, taint["effect"])
        and (toleration["operator"] == "Exists" or toleration["value"] == taint["value"])
        for toleration in tolerations
    )
