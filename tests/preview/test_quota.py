"""What a gateway with a quota declares."""

from __future__ import annotations

import socket
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from voicemesh import (
    GatewayHost,
    PublicGateway,
    PublicGatewayArgs,
    RequestQuota,
    TokenIssuer,
    WhenUnavailable,
)
from voicemesh.testing import Recording, record

LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
ENVOY_FILTER = "kubernetes:networking.istio.io/v1alpha3:EnvoyFilter"
GATEWAY = "kubernetes:networking.istio.io/v1:Gateway"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
AUTHORIZATION = "kubernetes:security.istio.io/v1:AuthorizationPolicy"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"


def recorded(quota: RequestQuota | None, **arguments: Any) -> Recording:
    hosts = [GatewayHost("a.example.com", secret_name="kept-elsewhere")]
    args = PublicGatewayArgs(hosts=hosts, issuers=[LOGIN], quota=quota, **arguments)

    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        PublicGateway("public", args, pulumi.ResourceOptions(provider=cluster))

    return record(program)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recorded(RequestQuota(60, replicas=3), mesh_revision="1-31-1")


def pods(recording: Recording) -> dict[str, dict[str, Any]]:
    return {
        deployment.inputs["metadata"]["name"]: deployment.inputs["spec"]
        for deployment in recording.of_type(DEPLOYMENT)
    }


def test_a_gateway_without_a_quota_runs_nothing_that_counts() -> None:
    recording = recorded(None)
    assert pods(recording) == {}
    assert "public-quota" not in [each.name for each in recording.of_type(ENVOY_FILTER)]


def test_there_is_one_store_whatever_the_replicas(recording: Recording) -> None:
    found = {name: spec["replicas"] for name, spec in pods(recording).items()}
    assert found == {"ratelimit": 3, "redis": 1}


def test_the_filter_comes_after_who_counts_and_routes_after_the_filter(
    recording: Recording,
) -> None:
    waiting = recording.one(ENVOY_FILTER, "public-quota").depends_on
    assert any(urn.endswith("::public-ratelimit") for urn in waiting)
    waiting = recording.one(GATEWAY, "public").depends_on
    assert any(urn.endswith("::public-quota") for urn in waiting)


def test_a_changed_limit_changes_a_file_and_no_pod() -> None:
    before, after = (recorded(RequestQuota(requests)) for requests in (60, 61))
    limits = [each.one(CONFIG_MAP, "public-ratelimit").inputs["data"] for each in (before, after)]
    assert limits[0] != limits[1]
    assert pods(before) == pods(after)


def test_the_file_of_the_limits_is_where_the_service_watches(recording: Recording) -> None:
    (container,) = pods(recording)["ratelimit"]["template"]["spec"]["containers"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    folder = "/".join([settings["RUNTIME_ROOT"], settings["RUNTIME_SUBDIRECTORY"], "config"])
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [folder]
    assert settings["RUNTIME_WATCH_ROOT"] == "false"


def test_a_connection_on_which_redis_is_silent_is_given_up(recording: Recording) -> None:
    spec = recording.one(ENVOY_FILTER, "public-redis").inputs["spec"]
    assert spec["workloadSelector"] == {"labels": {"app": "ratelimit"}}
    (patch,) = spec["configPatches"]
    service = patch["match"]["cluster"]
    assert service == {"service": "redis.istio-ingress.svc.cluster.local", "portNumber": 6379}
    (option,) = patch["patch"]["value"]["upstream_bind_config"]["socket_options"]
    assert (option["level"], option["name"]) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_who_has_lost_redis_is_asked_no_more(recording: Recording) -> None:
    (container,) = pods(recording)["ratelimit"]["template"]["spec"]["containers"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    assert settings["REDIS_HEALTH_CHECK_ACTIVE_CONNECTION"] == "true"
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthcheck"
    assert container["readinessProbe"]["failureThreshold"] == 1


def test_every_pod_is_confined_and_made_again_for_another_mesh(recording: Recording) -> None:
    for spec in pods(recording).values():
        pod = spec["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"]
        assert not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert "1-31-1" in spec["template"]["metadata"]["annotations"].values()


def test_a_node_at_a_time_may_be_emptied_of_who_counts(recording: Recording) -> None:
    budget = recording.one(BUDGET, "public-ratelimit").inputs["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == pods(recording)["ratelimit"]["selector"]


@pytest.mark.parametrize(
    ("app", "caller", "labels", "port"),
    [
        ("redis", "ratelimit", {"app": "ratelimit"}, 6379),
        ("ratelimit", "public", {"istio": "public"}, 8081),
    ],
)
def test_each_part_answers_the_one_before_it_alone(
    recording: Recording, app: str, caller: str, labels: dict[str, str], port: int
) -> None:
    allowed = recording.one(AUTHORIZATION, f"public-{app}").inputs["spec"]
    principals = allowed["rules"][0]["from"][0]["source"]["principals"]
    assert principals == [f"cluster.local/ns/istio-ingress/sa/{caller}"]
    reachable = recording.one(NETWORK_POLICY, f"public-{app}").inputs["spec"]
    assert reachable["podSelector"] == {"matchLabels": {"app": app}}
    callers = reachable["ingress"][0]
    assert callers["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert callers["ports"] == [{"port": port, "protocol": "TCP"}]


def test_whether_uncounted_requests_are_served_is_an_argument() -> None:
    for when in WhenUnavailable:
        spec = recorded(RequestQuota(60, when_unavailable=when)).one(ENVOY_FILTER, "public-quota")
        config = spec.inputs["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]
        assert config["failure_mode_deny"] is (when is WhenUnavailable.DENY)
