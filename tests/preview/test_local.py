"""The embedded environment as a whole: what must hold, and that each check can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.local.topology import NODES
from tests.preview import rules
from tests.preview.program import record_local, refusal
from tests.preview.rules import (
    AUTHENTICATION,
    AUTHORIZATION,
    DEPLOYMENT,
    DESTINATION_RULE,
    GATEWAY,
    QUOTA,
    VIRTUAL_SERVICE,
    Rule,
    mutated,
)
from tests.stacks import changed, local_values
from voicemesh.testing import Recording

BY_NAME = {node.name: node for node in NODES}

Change = Callable[[dict[str, Any]], Any]


def _subsets(change: Change) -> Change:
    return lambda inputs: [change(subset) for subset in inputs["spec"]["subsets"]]


def _pod(change: Change) -> Change:
    return lambda inputs: change(inputs["spec"]["template"]["spec"])


def _container(change: Change) -> Change:
    return _pod(lambda pod: change(pod["containers"][0]))


def _routes(change: Change) -> Change:
    return lambda inputs: [change(route) for route in inputs["spec"]["http"]]


def _token_rules(change: Change) -> Change:
    return lambda inputs: [change(rule) for rule in inputs["spec"]["jwtRules"]]


# A rule, and one change to the environment that it must catch.
MUTATIONS: list[tuple[Rule, str, Change]] = [
    (
        rules.one_failing_pod_can_be_ejected,
        DESTINATION_RULE,
        _subsets(
            lambda subset: subset["trafficPolicy"]["outlierDetection"].pop("maxEjectionPercent")
        ),
    ),
    (
        rules.one_failing_pod_can_be_ejected,
        DESTINATION_RULE,
        _subsets(lambda subset: subset["trafficPolicy"].pop("outlierDetection")),
    ),
    (
        rules.five_hundreds_in_a_row_eject,
        DESTINATION_RULE,
        _subsets(lambda subset: subset["trafficPolicy"]["outlierDetection"].update(interval="10s")),
    ),
    (
        rules.failover_between_zones_is_off,
        DESTINATION_RULE,
        lambda inputs: inputs["spec"]["trafficPolicy"]["loadBalancer"].pop("localityLbSetting"),
    ),
    (
        rules.every_subset_has_pods,
        DESTINATION_RULE,
        _subsets(lambda subset: subset["labels"].update(version="2.0-beta")),
    ),
    (
        rules.every_route_leads_to_a_subset,
        DESTINATION_RULE,
        lambda inputs: inputs["spec"]["subsets"].pop(),
    ),
    (
        rules.every_route_leads_to_a_subset,
        DESTINATION_RULE,
        lambda inputs: inputs["spec"].update(host="speech"),
    ),
    (
        rules.every_route_leads_to_a_subset,
        VIRTUAL_SERVICE,
        _routes(lambda route: route["route"][0].update(weight=80)),
    ),
    (
        rules.public_routes_are_bound_to_a_gateway_that_has_their_hosts,
        VIRTUAL_SERVICE,
        lambda inputs: inputs["spec"].pop("gateways"),
    ),
    (
        rules.public_routes_are_bound_to_a_gateway_that_has_their_hosts,
        GATEWAY,
        lambda inputs: [server.update(hosts=["other/x.y"]) for server in inputs["spec"]["servers"]],
    ),
    (rules.no_metrics_in_public, VIRTUAL_SERVICE, _routes(lambda route: route.pop("match", None))),
    (
        rules.tokens_are_verified_at_the_gateway_and_again_at_each_voice,
        AUTHENTICATION,
        lambda inputs: inputs["metadata"].update(namespace="elsewhere"),
    ),
    (
        rules.tokens_are_verified_at_the_gateway_and_again_at_each_voice,
        AUTHENTICATION,
        _token_rules(lambda rule: rule.update(forwardOriginalToken=True)),
    ),
    (
        rules.tokens_are_verified_at_the_gateway_and_again_at_each_voice,
        AUTHENTICATION,
        _token_rules(lambda rule: rule.update(audiences=[])),
    ),
    (
        rules.tokens_are_verified_at_the_gateway_and_again_at_each_voice,
        AUTHENTICATION,
        lambda inputs: _token_rules(
            lambda rule: rule.update(jwksUri=f"http://{inputs['metadata']['namespace']}/keys")
        )(inputs),
    ),
    (
        rules.nobody_comes_in_without_a_token_or_a_name,
        AUTHORIZATION,
        lambda inputs: inputs["spec"].update(action="AUDIT"),
    ),
    (
        rules.nobody_comes_in_without_a_token_or_a_name,
        AUTHORIZATION,
        lambda inputs: [rule.pop("from", None) for rule in inputs["spec"].get("rules", [])],
    ),
    (rules.no_request_is_run_twice, VIRTUAL_SERVICE, _routes(lambda route: route.pop("retries"))),
    (
        rules.no_request_is_run_twice,
        VIRTUAL_SERVICE,
        _routes(lambda route: route["retries"].update(retryOn="5xx,connect-failure")),
    ),
    (
        rules.pods_meet_the_restricted_standard,
        DEPLOYMENT,
        _pod(lambda pod: pod["securityContext"].pop("seccompProfile")),
    ),
    (
        rules.pods_meet_the_restricted_standard,
        DEPLOYMENT,
        _container(lambda container: container["securityContext"].pop("capabilities")),
    ),
    (
        rules.pods_meet_the_restricted_standard,
        DEPLOYMENT,
        _pod(lambda pod: pod.pop("automountServiceAccountToken")),
    ),
    (
        rules.rollouts_need_no_spare_gpu,
        DEPLOYMENT,
        lambda inputs: inputs["spec"].pop("strategy"),
    ),
    (
        rules.pods_outlive_their_streams(600),
        DEPLOYMENT,
        _pod(lambda pod: pod.pop("terminationGracePeriodSeconds")),
    ),
    (
        rules.gpus_are_requested_and_limited_alike,
        DEPLOYMENT,
        _container(lambda container: container["resources"]["limits"].pop("nvidia.com/gpu")),
    ),
    (
        rules.pods_run_on_these_nodes_only(BY_NAME, {"online"}),
        DEPLOYMENT,
        _pod(lambda pod: pod.pop("tolerations")),
    ),
    (
        rules.pods_run_on_these_nodes_only(BY_NAME, {"online"}),
        DEPLOYMENT,
        _pod(lambda pod: pod.update(nodeSelector={})),
    ),
    (
        rules.workloads_fit_their_quota,
        QUOTA,
        lambda inputs: inputs["spec"]["hard"].update({"requests.nvidia.com/gpu": "2"}),
    ),
]


def _name(rule: Rule) -> str:
    return rule.__qualname__.split(".")[0]


@pytest.mark.parametrize(
    ("rule", "type_", "change"),
    MUTATIONS,
    ids=[f"{_name(rule)}-{index}" for index, (rule, _, _) in enumerate(MUTATIONS)],
)
def test_rule_holds_and_notices_the_fault(
    rule: Rule, type_: str, change: Change, local: Recording
) -> None:
    assert list(rule(local)) == []
    assert list(rule(mutated(local, type_, change)))


def test_the_stack_tells_what_its_users_need(local: Recording) -> None:
    assert local.exports == {
        "bucket": "voicemesh-local",
        "bucketArn": "arn:aws:s3:us-east-1:123456789012:voices",
        "bucketKeyArn": "arn:aws:kms:us-east-1:123456789012:voices",
        "gateway": {
            "address": None,
            "namespace": "istio-ingress",
            "principal": "cluster.local/ns/istio-ingress/sa/public-gateway",
            "ref": "istio-ingress/public-gateway",
        },
        "hosts": {"tts-speech": "speech.tts.svc.cluster.local"},
        "injectionLabels": {"istio.io/rev": "voicemesh"},
        "istioVersion": "1.31.0",
        "meshRevision": "default",
        "namespaces": ["tts"],
        "urls": {"tts-speech": ["https://tts.voicemesh.localhost"]},
        "versions": {"tts-speech": {"stable": "0.1.0", "experimental": "0.1.0"}},
    }


def test_urns_are_the_ones_that_stacks_in_use_already_have(local: Recording) -> None:
    prefix = "urn:pulumi:local::voicemesh::"
    assert {urn.urn.removeprefix(prefix) for urn in local.registrations} >= {
        "voicemesh:index:IstioMesh::mesh",
        "voicemesh:index:IstioMesh$kubernetes:helm.sh/v3:Release::mesh-istiod",
        "voicemesh:index:PublicGateway$kubernetes:helm.sh/v3:Release::public-gateway",
        "voicemesh:index:TenantNamespace$kubernetes:core/v1:Namespace::tts",
        "voicemesh:index:TtsVoiceService$kubernetes:apps/v1:Deployment::tts-speech-stable",
        "voicemesh:index:VoiceStorage$aws:s3/bucket:Bucket::voices",
    }


def test_a_second_voice_and_a_second_tenant_need_only_configuration(kubeconfig: Path) -> None:
    values = local_values()
    tenant = {**values["tenants"][0], "name": "other"}
    voice = {**values["voices"][0], "tenant": "other", "hosts": []}
    second = {**values["voices"][0], "name": "second", "hosts": []}
    values = changed(values, "tenants", "+", to=tenant)
    values = changed(values, "tenants", 0, "quota", "gpus", to={"nvidia.com/gpu": 6})
    recording = record_local(
        changed(changed(values, "voices", "+", to=voice), "voices", "+", to=second), kubeconfig
    )
    assert list(rules.no_object_is_declared_twice(recording)) == []
    assert len(rules.voices(recording, DEPLOYMENT)) == 6


def test_an_environment_without_storage_declares_nothing_of_aws(kubeconfig: Path) -> None:
    values = changed(changed(local_values(), "storage", to={}), "aws", to={})
    recording = record_local(values, kubeconfig)
    assert not [r for r in recording.registrations if "aws" in r.type]
    assert "bucket" not in recording.exports


def test_a_platform_alone_has_no_tenants(kubeconfig: Path) -> None:
    values = changed(local_values(), "layers", to=["platform"])
    values = changed(changed(values, "tenants", to=[]), "voices", to=[])
    recording = record_local(values, kubeconfig)
    assert {component.type for component in recording.components()} == {
        "voicemesh:index:IstioMesh",
        "voicemesh:index:PublicGateway",
        "voicemesh:index:VoiceStorage",
    }


def test_a_missing_kubeconfig_ends_the_program_with_its_path_and_nothing_declared(
    tmp_path: Path,
) -> None:
    values = changed(local_values(), "cluster", "kubeconfig", to=str(tmp_path / "nowhere"))
    reason, recording = refusal("local", values)
    path = tmp_path / "nowhere"
    assert f"voicemesh:cluster.kubeconfig: cannot read {path}: No such file" in reason
    assert recording.registrations == ()


def test_a_faulty_configuration_ends_the_program_before_anything_is_declared(
    kubeconfig: Path,
) -> None:
    values = changed(local_values(), "cluster", "kubeconfig", to=str(kubeconfig))
    reason, recording = refusal(
        "local", changed(values, "voices", 0, "variants", 0, "weight", to=80)
    )
    assert "weights that add up to 100" in reason
    assert recording.registrations == ()
