"""A tenant's namespace: whom its policies let reach whom, what its users may do, what waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from tests.evaluators.network_policies import Cluster, Party
from tests.evaluators.tenant_access import (
    OTHER_TENANT,
    PARTIES,
    TABLE,
    TENANT,
    differences,
)
from tests.preview.rules import mutated
from voicemesh import (
    ArgumentsError,
    Egress,
    GpuNodeGroupArgs,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantNetwork,
    TenantQuota,
)
from voicemesh.cluster.accelerators import INSTANCES, MIG_PROFILES
from voicemesh.cluster.nodes import node_view
from voicemesh.testing import Recording, Registration, record

POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
ROLE = "kubernetes:rbac.authorization.k8s.io/v1:Role"
BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
QUOTA = TenantQuota(4, 8, 20)
NETWORK = TenantNetwork(egress=[Egress("10.245.0.1/32", [4566])])

Spec = dict[str, Any]
Change = Callable[[Spec], Any]


def recorded(network: TenantNetwork = NETWORK, **arguments: Any) -> Recording:
    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        for name in (TENANT, OTHER_TENANT):
            args = TenantNamespaceArgs(name, QUOTA, network=network, **arguments)
            TenantNamespace(name, args, pulumi.ResourceOptions(providers=[cluster]))

    return record(program)


def cluster_of(recording: Recording) -> Cluster:
    """The recorded policies; without labels of namespaces, since none is to depend on them."""
    namespaces = {party.namespace: {} for party in PARTIES.values() if party.namespace}
    return Cluster([policy.inputs for policy in recording.of_type(POLICY)], namespaces)


@pytest.fixture(scope="module")
def tenants() -> Recording:
    return recorded()


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_who_reaches_whom(row: Any, tenants: Recording) -> None:
    source, target = PARTIES[row.source], PARTIES[row.target]
    assert cluster_of(tenants).allows(source, target, row.port, row.protocol) is row.allowed


def _without(policy: str) -> Callable[[Recording], Recording]:
    def change(recording: Recording) -> Recording:
        kept = (
            it
            for it in recording.registrations
            if it.type != POLICY or it.inputs["metadata"]["name"] != policy
        )
        return replace(recording, registrations=tuple(kept))

    return change


def _in(policy: str, change: Change) -> Callable[[Recording], Recording]:
    def changed(inputs: dict[str, Any]) -> None:
        if inputs["metadata"]["name"] == policy:
            change(inputs["spec"])

    return lambda recording: mutated(recording, POLICY, changed)


def _rule_with_port(section: list[Spec], port: int) -> Spec:
    return next(rule for rule in section if port in [it["port"] for it in rule["ports"]])


def _egress(port: int, change: Change) -> Change:
    return lambda spec: change(_rule_with_port(spec["egress"], port))


def _drop_egress(port: int) -> Change:
    return lambda spec: spec["egress"].remove(_rule_with_port(spec["egress"], port))


# A change to the policies, and a row of the table that it breaks.
MUTATIONS: dict[str, tuple[Callable[[Recording], Recording], str]] = {
    "every policy that isolates is gone": (
        lambda recording: replace(
            recording,
            registrations=tuple(r for r in recording.registrations if r.type != POLICY),
        ),
        "stranger does not reach voice:8080",
    ),
    "ingress stays free": (
        lambda recording: mutated(
            recording, POLICY, lambda inputs: inputs["spec"].update(policyTypes=["Egress"])
        ),
        "stranger does not reach voice:8080",
    ),
    "egress stays free": (
        lambda recording: mutated(
            recording, POLICY, lambda inputs: inputs["spec"].update(policyTypes=["Ingress"])
        ),
        "voice does not reach instance metadata:80",
    ),
    "no DNS": (_in("cluster-services", _drop_egress(53)), "voice reaches dns:53/UDP"),
    "DNS over UDP only": (
        _in("cluster-services", _egress(53, lambda rule: rule["ports"].pop())),
        "voice reaches dns:53",
    ),
    "DNS anywhere": (
        _in("cluster-services", _egress(53, lambda rule: rule.pop("to"))),
        "voice does not reach outside:53/UDP",
    ),
    "all of kube-system on every port": (
        _in("cluster-services", _egress(53, lambda rule: rule.pop("ports"))),
        "voice does not reach dns:9153",
    ),
    "all of kube-system": (
        _in(
            "cluster-services",
            _egress(
                53,
                lambda rule: [rule.pop("ports"), rule["to"][0].pop("podSelector")],
            ),
        ),
        "voice does not reach metrics server:10250",
    ),
    "no istiod": (_in("cluster-services", _drop_egress(15012)), "voice reaches istiod:15012"),
    "all of istio-system": (
        _in("cluster-services", _egress(15012, lambda rule: rule["to"][0].pop("podSelector"))),
        "voice does not reach mesh dashboard:15012",
    ),
    "no collector": (_in("cluster-services", _drop_egress(4317)), "voice reaches monitoring:4317"),
    "no Pod Identity": (
        _in("cluster-services", _drop_egress(80)),
        "voice reaches pod identity agent:80",
    ),
    "Pod Identity by all link-local addresses": (
        _in(
            "cluster-services",
            _egress(80, lambda rule: rule["to"][0]["ipBlock"].update(cidr="169.254.0.0/16")),
        ),
        "voice does not reach instance metadata:80",
    ),
    "metadata not excepted": (
        _in("outside", _egress(443, lambda rule: rule["to"][0]["ipBlock"].pop("except"))),
        "voice does not reach instance metadata:443",
    ),
    "no HTTPS": (_in("outside", _drop_egress(443)), "voice reaches outside:443"),
    "every port outside": (
        _in("outside", _egress(443, lambda rule: rule.pop("ports"))),
        "voice does not reach outside:80",
    ),
    "no local S3": (_in("outside", _drop_egress(4566)), "voice reaches local s3:4566"),
    "no neighbours": (_without("within-namespace"), "voice reaches neighbour:8080"),
    "neighbours of every namespace": (
        _in(
            "within-namespace",
            lambda spec: spec["ingress"][0]["from"].append({"namespaceSelector": {}}),
        ),
        "stranger does not reach voice:8080",
    ),
    "no gateway": (
        _in("callers", lambda spec: spec["ingress"].remove(_rule_with_port(spec["ingress"], 8080))),
        "gateway reaches voice:8080",
    ),
    "the gateway on every port": (
        _in("callers", lambda spec: _rule_with_port(spec["ingress"], 8080).pop("ports")),
        "gateway does not reach voice:15020",
    ),
    "the port of the Service's sidecar in place of the pod's": (
        _in(
            "callers",
            lambda spec: _rule_with_port(spec["ingress"], 8080)["ports"][0].update(port=15006),
        ),
        "gateway reaches voice:8080",
    ),
    "no scrape": (
        _in(
            "callers", lambda spec: spec["ingress"].remove(_rule_with_port(spec["ingress"], 15020))
        ),
        "monitoring reaches voice:15020",
    ),
    "everyone may scrape": (
        _in("callers", lambda spec: _rule_with_port(spec["ingress"], 15020).pop("from")),
        "stranger does not reach voice:15020",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_table_notices(name: str, tenants: Recording) -> None:
    change, broken = MUTATIONS[name]
    assert list(differences(cluster_of(tenants))) == []
    assert f"not so: {broken}" in differences(cluster_of(change(tenants)))


def test_default_deny_alone_closes_everything_in_both_directions(tenants: Recording) -> None:
    """Whatever else a stack adds or removes, nothing is open while `default-deny` is there."""
    for allowing in ("within-namespace", "callers", "cluster-services", "outside"):
        tenants = _without(allowing)(tenants)
    cluster = cluster_of(tenants)
    for row in TABLE:
        if not row.source.startswith("own node"):
            ends = PARTIES[row.source], PARTIES[row.target]
            assert not cluster.allows(*ends, row.port, row.protocol), row


def test_the_way_to_the_api_server_is_closed_by_naming_where_https_goes() -> None:
    api_server = Party("10.0.12.34")
    voice, endpoint = PARTIES["voice"], Party("10.0.200.9")
    assert cluster_of(recorded()).allows(voice, api_server, 443)
    narrowed = cluster_of(recorded(replace(NETWORK, https_cidrs=["10.0.200.0/24"])))
    assert not narrowed.allows(voice, api_server, 443)
    assert narrowed.allows(voice, endpoint, 443)
    assert not narrowed.allows(voice, PARTIES["outside"], 443)


def test_without_https_nothing_outside_is_reached_on_any_port() -> None:
    closed = cluster_of(recorded(TenantNetwork(https_cidrs=())))
    voice = PARTIES["voice"]
    assert not any(closed.allows(voice, PARTIES["outside"], port) for port in (80, 443, 4566))
    assert closed.allows(voice, PARTIES["dns"], 53, "UDP")


def test_further_callers_reach_the_voices_and_nothing_else() -> None:
    cluster = cluster_of(recorded(replace(NETWORK, caller_namespaces=["somewhere"])))
    stranger, voice = PARTIES["stranger"], PARTIES["voice"]
    assert cluster.allows(stranger, voice, 8080)
    assert not cluster.allows(stranger, voice, 15020)


def test_a_block_of_ipv6_leaves_its_own_link_local_addresses_out() -> None:
    network = replace(NETWORK, https_cidrs=["::/0"])
    cluster = cluster_of(recorded(network))
    voice = PARTIES["voice"]
    assert cluster.allows(voice, Party("2001:db8::1"), 443)
    assert not cluster.allows(voice, Party("fe80::1"), 443)
    assert not cluster.allows(voice, Party("fd00:ec2::254"), 443)


def test_pods_are_restricted_and_containers_that_name_no_memory_are_bounded(
    tenants: Recording,
) -> None:
    labels = tenants.one("kubernetes:core/v1:Namespace", TENANT).inputs["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    limits = tenants.one("kubernetes:core/v1:LimitRange", TENANT).inputs["spec"]["limits"]
    assert limits == [
        {
            "type": "Container",
            "default": {"memory": "256Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "256Mi"},
        }
    ]


def test_the_namespace_is_given_out_once_quota_limits_and_policies_hold(
    tenants: Recording,
) -> None:
    def declare() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        options = pulumi.ResourceOptions(providers=[cluster])
        tenant = TenantNamespace(TENANT, TenantNamespaceArgs(TENANT, QUOTA), options)
        kubernetes.core.v1.ConfigMap("user", metadata={"namespace": tenant.namespace})

    recording = record(declare)
    waits = recording.one("kubernetes:core/v1:ConfigMap").depends_on
    bounds = [
        *recording.of_type(POLICY),
        recording.one("kubernetes:core/v1:ResourceQuota"),
        recording.one("kubernetes:core/v1:LimitRange"),
    ]
    assert len(bounds) == 7
    assert {bound.urn for bound in bounds} <= waits


@pytest.mark.parametrize(
    ("gpus", "allowed"),
    [
        ({}, {}),
        ({"nvidia.com/gpu": 4}, {"nvidia.com/gpu": "4"}),
        ({"nvidia.com/mig-1g.20gb": 6}, {"nvidia.com/mig-1g.20gb": "6"}),
    ],
)
def test_gpus_and_slices_that_a_quota_does_not_list_are_refused(
    gpus: dict[str, int], allowed: dict[str, str]
) -> None:
    hard = replace(QUOTA, gpus=gpus).hard
    resources = ["nvidia.com/gpu"]
    for accelerator, profiles in MIG_PROFILES.items():
        for profile in profiles:
            group = GpuNodeGroupArgs(
                cluster_name="voices",
                node_role_arn="arn:aws:iam::123456789012:role/node",
                subnets={"us-east-2a": "subnet-1"},
                accelerator=accelerator,
                instance_types=[
                    next(it for it, gpu in INSTANCES.items() if gpu.accelerator == accelerator)
                ],
                mig_profile=profile,
                min_size=0,
                max_size=1,
            )
            resources.append(node_view(group).gpu_resource)
    assert len(resources) > 10
    for resource in resources:
        assert hard[f"requests.{resource}"] == allowed.get(resource, "0")


def test_urns_of_what_was_there_before_stay(tenants: Recording) -> None:
    prefix = "urn:pulumi:test::voicemesh::voicemesh:index:TenantNamespace$kubernetes:core/v1:"
    urns = {registration.urn for registration in tenants.registrations}
    kinds = ("Namespace", "ResourceQuota", "LimitRange", "ServiceAccount")
    assert urns >= {f"{prefix}{kind}::{TENANT}" for kind in kinds}


class TestAccess:
    def test_without_groups_nobody_is_given_anything(self, tenants: Recording) -> None:
        assert not tenants.of_type(ROLE)
        assert not tenants.of_type(BINDING)

    def test_groups_are_bound_to_their_role_in_the_tenants_namespace(self) -> None:
        recording = recorded(administrators=["tts-admins"], viewers=["tts", "support"])
        bound = {
            binding.inputs["metadata"]["name"]: [
                (subject["kind"], subject["name"]) for subject in binding.inputs["subjects"]
            ]
            for binding in recording.of_type(BINDING)
            if binding.inputs["metadata"]["namespace"] == TENANT
        }
        assert bound == {
            "administrators": [("Group", "tts-admins")],
            "viewers": [("Group", "tts"), ("Group", "support")],
        }
        for binding in recording.of_type(BINDING):
            role = binding.inputs["roleRef"]
            assert (role["kind"], role["name"]) == ("Role", binding.inputs["metadata"]["name"])

    @pytest.mark.parametrize(
        ("verb", "resource", "viewers", "administrators"),
        [
            ("get", "pods", True, True),
            ("get", "pods/log", True, True),
            ("list", "events.k8s.io/events", True, True),
            ("watch", "apps/deployments", True, True),
            ("get", "autoscaling/horizontalpodautoscalers", True, True),
            ("get", "networking.k8s.io/networkpolicies", True, True),
            ("get", "resourcequotas", True, True),
            ("get", "secrets", False, True),
            ("create", "secrets", False, True),
            ("delete", "pods", False, True),
            ("create", "pods/eviction", False, True),
            ("patch", "apps/deployments/scale", False, True),
            ("create", "batch/jobs", False, True),
            ("create", "pods", False, False),
            ("patch", "apps/deployments", False, False),
            ("create", "pods/exec", False, False),
            ("create", "pods/attach", False, False),
            ("create", "pods/portforward", False, False),
            ("get", "pods/exec", False, False),
            ("update", "pods/ephemeralcontainers", False, False),
            ("patch", "resourcequotas", False, False),
            ("patch", "limitranges", False, False),
            ("delete", "networking.k8s.io/networkpolicies", False, False),
            ("patch", "networking.istio.io/virtualservices", False, False),
            ("create", "security.istio.io/authorizationpolicies", False, False),
            ("create", "services", False, False),
            ("create", "discovery.k8s.io/endpointslices", False, False),
            ("create", "serviceaccounts/token", False, False),
            ("create", "rbac.authorization.k8s.io/rolebindings", False, False),
            ("get", "nodes/proxy", False, False),
        ],
    )
    def test_who_may_do_what(
        self, verb: str, resource: str, viewers: bool, administrators: bool
    ) -> None:
        recording = recorded(administrators=["admins"], viewers=["viewers"])
        roles = {name: recording.one(ROLE, f"{TENANT}-{name}") for name in _ROLES}
        found = tuple(_may(roles[name], verb, resource) for name in _ROLES)
        assert found == (viewers, administrators)

    def test_no_role_has_a_wildcard(self) -> None:
        for role in recorded(administrators=["admins"], viewers=["viewers"]).of_type(ROLE):
            assert "*" not in json.dumps(role.inputs["rules"])


_ROLES = ("viewers", "administrators")


def _may(role: Registration, verb: str, resource: str) -> bool:
    """`resource` is group/name, or a name of the core group; a subresource comes after it."""
    first, _, rest = resource.partition("/")
    is_group = "." in first or first in ("apps", "autoscaling", "batch")
    group, name = (first, rest) if is_group else ("", resource)
    return any(
        group in rule["apiGroups"] and name in rule["resources"] and verb in rule["verbs"]
        for rule in role.inputs["rules"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"network": TenantNetwork(https_cidrs=["10.0.0.1/16"])},
            "network.https_cidrs[0] is '10.0.0.1/16'; allowed: a block such as 10.1.2.0/24 "
            "(10.0.0.1/16 has host bits set)",
        ),
        (
            {"network": TenantNetwork(https_cidrs=["169.254.169.254/32"])},
            "network.https_cidrs[0] is '169.254.169.254/32'; allowed: addresses that are not "
            "link-local",
        ),
        (
            {"network": TenantNetwork(https_cidrs="0.0.0.0/0")},
            "network.https_cidrs is '0.0.0.0/0'; allowed: a list, as in ['0.0.0.0/0']",
        ),
        (
            {"network": TenantNetwork(egress=[Egress("10.0.0.0/8", [])])},
            "network.egress[0].ports is []; allowed: at least one TCP port",
        ),
        (
            {"network": TenantNetwork(egress=[Egress("10.0.0.0/8", [70000])])},
            "network.egress[0].ports[0] is 70000; allowed: 1 to 65535",
        ),
        (
            {"network": TenantNetwork(gateway_namespace="Istio Ingress")},
            "network.gateway_namespace is 'Istio Ingress'; allowed: up to 63 of a-z, 0-9 and '-', "
            "as in 'tts-a'",
        ),
        (
            {"network": TenantNetwork(caller_namespaces=["*"])},
            "network.caller_namespaces[0] is '*'; allowed: up to 63 of a-z, 0-9 and '-', "
            "as in 'tts-a'",
        ),
        (
            {"administrators": ["system:authenticated"]},
            "administrators[0] is 'system:authenticated'; allowed: a group of your own, not one of "
            "Kubernetes (system:…)",
        ),
        (
            {"viewers": ["support", "support"]},
            "viewers is 'support'; allowed: each group once",
        ),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentsError) as refusal:
        TenantNamespaceArgs(TENANT, QUOTA, **arguments)
    assert str(refusal.value) == f"TenantNamespace: {message}"


def test_all_mistakes_are_named_at_once() -> None:
    network = TenantNetwork(https_cidrs=["x"], egress=[Egress("y", [0])])
    with pytest.raises(ArgumentsError) as refusal:
        TenantNamespaceArgs("A", QUOTA, network=network, viewers=[""])
    assert len(str(refusal.value).splitlines()) == 5
