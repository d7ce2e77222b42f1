"""Every environment as a whole: what must hold, and that each check can fail."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest

from tests.preview import rules
from tests.preview.program import as_referred_to, record_program
from tests.preview.rules import (
    DEPLOYMENT,
    DESTINATION_RULE,
    EKS,
    QUOTA,
    RELEASE,
    SCALED_OBJECT,
    VIRTUAL_SERVICE,
    Rule,
    mutated,
    with_options,
)
from tests.stacks import (
    CLUSTER_OF,
    PRIVATE_KEY,
    PROJECT,
    SECRET_KEY,
    STACKS,
    changed,
    many_services,
    stack_values,
    without,
)
from voicemesh.service.pod_storage import STORAGE_ROLE_ANNOTATION
from voicemesh.testing import Recording, Registration

BUCKET = "aws:s3/bucket:Bucket"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
NAMESPACE = "kubernetes:core/v1:Namespace"
KUBERNETES_PROVIDER = "pulumi:providers:kubernetes"
NODE_GROUP_COMPONENT = "voicemesh:index:GpuNodeGroup"
KUBECONFIGS = ("kubeconfig-token", "client.authentication.k8s.io")
PRIVATE_KEYS = (PRIVATE_KEY.splitlines()[1], base64.b64encode(PRIVATE_KEY.encode()).decode())
PROTECTED = ("prod-cluster", "prod")
SHARED = ("dev", "staging", "prod-cluster", "prod")
"""Stacks that may live in one AWS account."""

INVARIANTS: list[Rule] = [
    rules.every_resource_is_the_child_of_a_component,
    rules.every_component_registers_outputs,
    rules.every_resource_uses_the_explicit_provider_of_its_package,
    rules.no_option_of_a_component_reaches_its_children,
    rules.no_object_is_declared_twice,
    rules.no_name_is_in_use_already(),
    rules.every_name_in_aws_is_known,
    rules.secrets_stay_secret(*KUBECONFIGS, *PRIVATE_KEYS, SECRET_KEY),
    rules.pods_wait_for_the_role_of_their_account,
    rules.services_are_made_after_their_pods,
    rules.autoscalers_own_the_number_of_pods,
    rules.one_failing_pod_can_be_ejected,
    rules.five_hundreds_in_a_row_eject,
    rules.failover_between_zones_is_off,
    rules.every_subset_has_pods,
    rules.every_route_leads_to_a_subset,
    rules.public_routes_are_bound_to_a_gateway_that_has_their_hosts,
    rules.clients_keep_their_addresses,
    rules.no_metrics_in_public,
    rules.tokens_are_verified_at_the_gateway_and_again_at_each_voice,
    rules.nobody_comes_in_without_a_token_or_a_name,
    rules.no_request_is_run_twice,
    rules.pods_meet_the_restricted_standard,
    rules.rollouts_need_no_spare_gpu,
    rules.pods_outlive_their_streams(600),
    rules.gpus_are_requested_and_limited_alike,
]

Fault = Callable[[Recording], Recording]


def _inputs(type_: str, change: Callable[[dict[str, Any]], Any]) -> Fault:
    return lambda recording: mutated(recording, type_, change)


def _options(type_: str, **options: Any) -> Fault:
    return lambda recording: with_options(recording, type_, **options)


# A rule, an environment that keeps it, and a change that it must notice. (Those about traffic and
# pods are shown theirs on the embedded environment.)
FAULTS: list[tuple[Rule, str, Fault]] = [
    (
        rules.every_resource_is_the_child_of_a_component,
        "prod-cluster",
        _options(NODE_GROUP, parent="urn:pulumi:prod-cluster::voicemesh::pulumi:pulumi:Stack::x"),
    ),
    (
        rules.every_component_registers_outputs,
        "prod-cluster",
        _options(NODE_GROUP_COMPONENT, outputs=None),
    ),
    (
        rules.every_resource_uses_the_explicit_provider_of_its_package,
        "dev",
        _options(NODE_GROUP, provider="urn:pulumi:dev::voicemesh::pulumi:providers:aws::other::x"),
    ),
    (
        rules.no_option_of_a_component_reaches_its_children,
        "dev",
        lambda recording: with_options(
            with_options(recording, NODE_GROUP_COMPONENT, protect=True), NODE_GROUP, protect=True
        ),
    ),
    (
        rules.no_object_is_declared_twice,
        "prod",
        _inputs(NAMESPACE, lambda inputs: inputs["metadata"].update(name="studio")),
    ),
    (
        rules.no_name_is_in_use_already(),
        "prod-cluster",
        _inputs("aws:iam/role:Role", lambda inputs: inputs.update(name="voicemesh")),
    ),
    (
        rules.secrets_stay_secret(*KUBECONFIGS),
        "prod",
        _options(KUBERNETES_PROVIDER, secret_paths=frozenset()),
    ),
    (
        rules.pods_wait_for_the_role_of_their_account,
        "prod",
        _inputs(
            DEPLOYMENT,
            lambda inputs: inputs["spec"]["template"]["metadata"]["annotations"].pop(
                STORAGE_ROLE_ANNOTATION, None
            ),
        ),
    ),
    (
        rules.services_are_made_after_their_pods,
        "prod",
        _options(rules.SERVICE, depends_on=frozenset()),
    ),
    (
        rules.autoscalers_own_the_number_of_pods,
        "prod",
        _inputs(DEPLOYMENT, lambda inputs: inputs["spec"].update(replicas=2)),
    ),
    (
        rules.autoscalers_own_the_number_of_pods,
        "prod",
        _inputs(SCALED_OBJECT, lambda inputs: inputs["spec"]["scaleTargetRef"].update(name="x")),
    ),
    (
        rules.one_failing_pod_can_be_ejected,
        "prod",
        _inputs(
            DESTINATION_RULE,
            lambda inputs: [
                subset["trafficPolicy"]["outlierDetection"].pop("maxEjectionPercent")
                for subset in inputs["spec"]["subsets"]
            ],
        ),
    ),
    (
        rules.every_route_leads_to_a_subset,
        "prod",
        _inputs(DESTINATION_RULE, lambda inputs: inputs["spec"]["subsets"].pop()),
    ),
    (
        rules.clients_keep_their_addresses,
        "prod",
        _inputs(
            RELEASE,
            lambda inputs: (
                inputs["values"]
                .get("service", {})
                .get("annotations", {})
                .pop("service.beta.kubernetes.io/aws-load-balancer-target-group-attributes", None)
            ),
        ),
    ),
    (
        rules.clients_keep_their_addresses,
        "dev",
        _inputs(
            RELEASE,
            lambda inputs: inputs["values"].get("service", {}).pop("annotations", None),
        ),
    ),
    (
        rules.no_metrics_in_public,
        "staging",
        _inputs(
            VIRTUAL_SERVICE,
            lambda inputs: [route.pop("match", None) for route in inputs["spec"]["http"]],
        ),
    ),
    (
        rules.workloads_fit_their_quota,
        "prod",
        _inputs(SCALED_OBJECT, lambda inputs: inputs["spec"].update(maxReplicaCount=99)),
    ),
    (
        rules.workloads_fit_their_quota,
        "prod",
        _inputs(QUOTA, lambda inputs: inputs["spec"]["hard"].update({"requests.cpu": "1"})),
    ),
    (
        rules.workloads_fit_their_quota,
        "prod",
        _inputs(
            DEPLOYMENT,
            lambda inputs: [
                container["resources"]["requests"].update(cpu="30")
                for container in inputs["spec"]["template"]["spec"].get("initContainers", [])
            ],
        ),
    ),
    (rules.stateful_resources_are_protected, "prod-cluster", _options(BUCKET, protect=False)),
    (
        rules.stateful_resources_are_protected,
        "prod-cluster",
        _inputs(EKS, lambda inputs: inputs.update(deletionProtection=False)),
    ),
    (rules.nothing_is_protected, "dev", _options(BUCKET, protect=True)),
]


def _name(value: object) -> str:
    return getattr(value, "__qualname__", str(value)).split(".")[0]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("rule", INVARIANTS, ids=_name)
def test_invariant(rule: Rule, stack: str, environments: Mapping[str, Recording]) -> None:
    assert list(rule(environments[stack])) == []


@pytest.mark.parametrize(
    ("rule", "stack", "fault"),
    FAULTS,
    ids=[f"{_name(rule)}-{index}" for index, (rule, _, _) in enumerate(FAULTS)],
)
def test_rule_holds_and_notices_the_fault(
    rule: Rule, stack: str, fault: Fault, environments: Mapping[str, Recording]
) -> None:
    assert list(rule(environments[stack])) == []
    assert list(rule(fault(environments[stack])))


@pytest.mark.parametrize("stack", ["local", "dev", "staging", "prod"])
def test_voices_fit_their_quotas_when_all_of_them_are_at_their_largest(
    stack: str, environments: Mapping[str, Recording]
) -> None:
    assert list(rules.workloads_fit_their_quota(environments[stack])) == []


@pytest.mark.parametrize("stack", STACKS)
def test_what_cannot_be_made_again_is_protected_in_production_and_only_there(
    stack: str, environments: Mapping[str, Recording]
) -> None:
    rule = (
        rules.stateful_resources_are_protected if stack in PROTECTED else rules.nothing_is_protected
    )
    assert list(rule(environments[stack])) == []


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_on_eks_pods_wait_for_what_offers_them_gpus_and_load_balancers(
    stack: str, environments: Mapping[str, Recording]
) -> None:
    recording = environments[stack]
    addons = {it.urn for it in recording.of_type(RELEASE) if "ClusterAddons$" in it.urn}
    assert len(addons) == 4
    waiting = [
        it
        for it in recording.of_type(NAMESPACE)
        if "PublicGateway$" in it.urn or "TenantNamespace$" in it.urn
    ]
    assert len(waiting) > 1
    for namespace in waiting:
        assert addons <= namespace.depends_on, namespace.urn


def test_production_has_something_to_protect(environments: Mapping[str, Recording]) -> None:
    found = {resource.type for resource in environments["prod-cluster"].registrations}
    assert found >= rules.STATEFUL - {"kubernetes:core/v1:PersistentVolumeClaim"}


def test_no_two_stacks_of_an_account_want_the_same_name(
    environments: Mapping[str, Recording],
) -> None:
    for stack in SHARED:
        others = [environments[other] for other in SHARED if other != stack]
        assert list(rules.no_name_is_in_use_already(*others)(environments[stack])) == []


def test_the_same_configuration_in_two_stacks_of_an_account_makes_no_name_twice(
    environments: Mapping[str, Recording],
) -> None:
    again = record_program("twin", stack_values("staging"))
    rule = rules.no_name_is_in_use_already(environments["staging"])
    assert list(rule(again)) == []
    # What they must differ in: the name of the stack.
    assert len(list(rule(environments["staging"]))) > 10


def test_options_of_a_component_change_nothing_about_its_children(
    environments: Mapping[str, Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every component of the program gets options that must stay its own."""
    make = pulumi.ComponentResource.__init__

    def make_with_options(
        self: Any, t: str, name: str, props: Any = None, opts: Any = None, *rest: Any
    ) -> None:
        further = pulumi.ResourceOptions(
            protect=True,
            retain_on_delete=True,
            ignore_changes=["everything"],
            aliases=[pulumi.Alias(name="former")],
            custom_timeouts=pulumi.CustomTimeouts(create="1s"),
            delete_before_replace=True,
            replace_on_changes=["something"],
        )
        make(self, t, name, props, pulumi.ResourceOptions.merge(opts, further), *rest)

    monkeypatch.setattr(pulumi.ComponentResource, "__init__", make_with_options)
    for stack in ("staging", "prod"):
        owner = CLUSTER_OF.get(stack)
        stacks = as_referred_to(owner, environments[owner]) if owner else None
        told = record_program(stack, stack_values(stack), stacks=stacks)
        assert all(component.protect for component in told.components())
        assert _children(told) == _children(environments[stack])


def _children(recording: Recording) -> dict[str, tuple[Any, ...]]:
    return {
        resource.urn: (
            resource.protect,
            resource.retain_on_delete,
            resource.ignore_changes,
            _own_aliases(resource),
            resource.custom_timeouts,
            resource.delete_before_replace,
            resource.replace_on_changes,
            resource.import_id,
        )
        for resource in recording.registrations
        if resource.custom
    }


def _own_aliases(resource: Registration) -> list[Any]:
    """Without those that the SDK derives from the parent's, by which a component can be renamed."""
    return [alias for alias in resource.aliases if "parentUrn" not in str(alias)]


def test_voices_of_production_are_checked_against_the_nodes_of_its_cluster(
    environments: Mapping[str, Recording],
) -> None:
    stacks = as_referred_to("prod-cluster", environments["prod-cluster"])
    values = changed(stack_values("prod"), "voices", 1, "variants", 0, "accelerator", to="l40s")
    with pytest.raises(pulumi.RunError) as refusal:
        record_program("prod", values, stacks=stacks)
    assert str(refusal.value).startswith(
        "the configuration is faulty:\nvoicemesh:voices[1].variants[0]: no node group has "
        "node-type=online-inference, accelerator=l40s, 1 nvidia.com/gpu on one node; there are "
        "online-reserved (online-inference h100, 1 nvidia.com/gpu on each node); "
    )


def test_production_says_which_output_it_misses_of_its_cluster(
    environments: Mapping[str, Recording],
) -> None:
    ((name, outputs),) = as_referred_to("prod-cluster", environments["prod-cluster"]).items()
    with pytest.raises(pulumi.RunError) as refusal:
        record_program("prod", stack_values("prod"), stacks={name: without(outputs, "kubeconfig")})
    assert str(refusal.value) == (
        f"voicemesh:cluster.stack: organization/{PROJECT}/prod-cluster has no output "
        "'kubeconfig'; bring it up first"
    )


def test_the_layer_cluster_needs_no_kubernetes(environments: Mapping[str, Recording]) -> None:
    recording = environments["prod-cluster"]
    assert not [r for r in recording.registrations if "kubernetes" in r.type]


def test_a_release_does_not_plan_against_the_cluster(
    environments: Mapping[str, Recording],
) -> None:
    """Of AWS, production has but the roles of its voices."""
    types = {r.type for r in environments["prod"].registrations if r.type.startswith("aws:")}
    assert types == {
        "aws:iam/role:Role",
        "aws:iam/rolePolicy:RolePolicy",
        rules.POD_IDENTITY,
    }


def test_a_bucket_gets_a_random_end_that_stays_and_one_with_a_name_does_not(
    environments: Mapping[str, Recording],
) -> None:
    dev = environments["dev"]
    assert dev.one(BUCKET).inputs["bucket"] == "voicemesh-dev-00112233"
    assert dev.one("random:index/randomId:RandomId").inputs == {
        "byteLength": 4,
        "keepers": {"prefix": "voicemesh-dev"},
    }
    assert environments["local"].one(BUCKET).inputs["bucket"] == "voicemesh-local"
    assert not [r for r in environments["local"].registrations if "random" in r.type]


def test_secret_outputs_are_marked_so(environments: Mapping[str, Recording]) -> None:
    assert environments["prod-cluster"].secret_exports == {"kubeconfig"}
    assert environments["prod"].secret_exports == frozenset()


def test_a_preview_asks_aws_nothing_unless_the_account_is_named() -> None:
    values = stack_values("prod-cluster")
    asking = {
        "skipCredentialsValidation": "true",
        "skipMetadataApiCheck": "true",
        "skipRequestingAccountId": "true",
    }
    told = record_program("prod-cluster", values).one("pulumi:providers:aws").inputs
    assert told.items() >= asking.items()
    named = changed(values, "aws", "accountId", to="123456789012")
    told = record_program("prod-cluster", named).one("pulumi:providers:aws").inputs
    assert told["allowedAccountIds"] == '["123456789012"]'
    assert not [key for key in asking if told.get(key) == "true"]


def test_fifty_voices_for_twenty_tenants_need_only_configuration() -> None:
    recording = record_program("staging", many_services(50, 20))
    for rule in [*INVARIANTS, rules.workloads_fit_their_quota]:
        assert list(rule(recording)) == []
    assert len(recording.of_type("voicemesh:index:TenantNamespace")) == 20
    assert len(recording.of_type("voicemesh:index:TtsVoiceService")) == 50
    assert len(recording.of_type("voicemesh:index:VoiceStorageAccess")) == 50


def test_a_further_voice_or_tenant_changes_nothing_about_the_others() -> None:
    few, more = (
        record_program("staging", many_services(services, tenants))
        for services, tenants in ((2, 2), (4, 3))
    )
    before = {r.urn: r.inputs for r in few.registrations}
    after = {r.urn: r.inputs for r in more.registrations}
    assert before.keys() < after.keys()
    changed_inputs = {urn for urn, inputs in before.items() if after[urn] != inputs}
    # What is sized by the configuration of all: the gateway's hosts and certificates, the quotas,
    # and how many nodes there may be.
    assert {urn.split("::")[2].split("$")[-1] for urn in changed_inputs} == {
        "kubernetes:networking.istio.io/v1:Gateway",
        "kubernetes:core/v1:ResourceQuota",
        NODE_GROUP,
    }
