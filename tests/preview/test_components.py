"""Details of single components that are easily lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pytest
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.runtime import rpc

from tests.preview.rules import (
    DEPLOYMENT,
    DESTINATION_RULE,
    GATEWAY,
    VIRTUAL_SERVICE,
)
from voicemesh import (
    ChartSource,
    GatewayHost,
    IstioMesh,
    IstioMeshArgs,
    ProxyBuild,
    PublicGateway,
    PublicGatewayArgs,
    ServiceType,
    TenantNamespace,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceStorage,
    VoiceStorageArgs,
    VoiceVariant,
)
from voicemesh.mesh import istiod_values, pilot_environment
from voicemesh.testing import EchoMocks, Recording, record

RELEASE = "kubernetes:helm.sh/v3:Release"
PEM = "-----BEGIN SOMETHING-----"
STABLE = VoiceVariant("stable", "1.0", "speech:1", weight=90, replicas=2)
EXPERIMENTAL = VoiceVariant("experimental", "2.0-beta", "speech:2", weight=10)
LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
VOICE = TtsVoiceServiceArgs(namespace="tts", variants=[STABLE, EXPERIMENTAL])
GATEWAY_ARGS = PublicGatewayArgs(
    hosts=[
        GatewayHost("a.example.com", certificate=PEM, private_key=PEM, namespace="tts"),
        GatewayHost("b.example.com", secret_name="kept-by-cert-manager"),
    ],
    issuers=[LOGIN],
)


def recorded(declare: Callable[[pulumi.ResourceOptions], object]) -> Recording:
    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        account = aws.Provider("aws", region="us-east-1")
        declare(pulumi.ResourceOptions(providers=[cluster, account]))

    return record(program)


def mesh(**arguments: Any) -> Recording:
    return recorded(lambda options: IstioMesh("mesh", IstioMeshArgs(**arguments), options))


def gateway(**arguments: Any) -> Recording:
    args = replace(GATEWAY_ARGS, **arguments)
    return recorded(lambda options: PublicGateway("public", args, options))


def voice(**arguments: Any) -> Recording:
    args = replace(VOICE, **arguments)
    return recorded(lambda options: TtsVoiceService("speech", args, options))


def waits_for(recording: Recording, type_: str, name: str, *others: str) -> None:
    waiting = recording.one(type_, name).depends_on
    assert {urn.rsplit("::", 1)[1] for urn in waiting} >= {*others}


class TestMesh:
    def test_charts_come_from_istios_repository_at_a_pinned_version(self) -> None:
        release = mesh().one(RELEASE, "mesh-cni").inputs
        assert release["chart"] == "cni"
        assert release["version"] == "1.31.0"
        assert release["repositoryOpts"]["repo"].startswith("https://istio-release.")

    def test_charts_can_come_from_a_directory(self) -> None:
        recording = mesh(charts=ChartSource(directory="/charts"))
        charts = {r.inputs["chart"] for r in recording.of_type(RELEASE)}
        assert charts == {"/charts/base", "/charts/istio-cni", "/charts/istiod"}

    def test_the_crds_come_first_and_policies_after_the_control_plane(self) -> None:
        recording = mesh()
        waits_for(recording, RELEASE, "mesh-istiod", "mesh-base", "mesh-system")
        waits_for(recording, RELEASE, "mesh-cni", "mesh-base", "mesh-cni")
        strict = "kubernetes:security.istio.io/v1:PeerAuthentication"
        waits_for(recording, strict, "mesh-strict", "mesh-istiod")
        assert recording.one(strict).inputs["spec"] == {"mtls": {"mode": "STRICT"}}
        assert recording.one(strict).inputs["metadata"]["namespace"] == "istio-system"

    def test_only_the_network_plugin_has_a_privileged_namespace(self) -> None:
        levels = {
            namespace.inputs["metadata"]["name"]: namespace.inputs["metadata"]["labels"][
                "pod-security.kubernetes.io/enforce"
            ]
            for namespace in mesh().of_type("kubernetes:core/v1:Namespace")
        }
        assert levels == {"istio-system": "restricted", "istio-cni": "privileged"}

    def test_sidecars_meet_the_restricted_standard(self) -> None:
        values = istiod_values(IstioMeshArgs())
        assert values["pilot"]["cni"] == {"enabled": True}
        assert values["global"]["proxy"]["seccompProfile"] == {"type": "RuntimeDefault"}

    def test_proxies_drain_for_longer_than_the_longest_stream(self) -> None:
        defaults = istiod_values(IstioMeshArgs(max_stream_seconds=900))["meshConfig"]
        for field in ("drainDuration", "terminationDrainDuration"):
            assert int(defaults["defaultConfig"][field].removesuffix("s")) > 900

    def test_proxies_are_there_before_applications_and_end_when_nobody_needs_them(self) -> None:
        defaults = istiod_values(IstioMeshArgs())["meshConfig"]["defaultConfig"]
        assert defaults["holdApplicationUntilProxyStarts"] is True
        # A drain as long as the longest stream would keep each pod for as long.
        assert defaults["proxyMetadata"]["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] == "true"

    def test_paths_are_normal_before_policies_see_them(self) -> None:
        config = istiod_values(IstioMeshArgs())["meshConfig"]
        assert config["pathNormalization"] == {"normalization": "DECODE_AND_MERGE_SLASHES"}

    @pytest.mark.parametrize("build", ProxyBuild)
    def test_new_keys_of_an_issuer_cut_no_stream(self, build: ProxyBuild) -> None:
        assert pilot_environment(build)["PILOT_JWT_ENABLE_REMOTE_JWKS"] == "envoy"

    def test_proxies_keep_the_statistics_that_a_canary_is_judged_by(self) -> None:
        config = istiod_values(IstioMeshArgs())["meshConfig"]["defaultConfig"]
        assert config["proxyStatsMatcher"] == {"inclusionPrefixes": ["cluster.outbound"]}

    def test_an_upstream_envoy_is_sent_none_of_istios_filters(self) -> None:
        upstream = istiod_values(IstioMeshArgs(proxy_build=ProxyBuild.UPSTREAM))
        assert upstream["telemetry"] == {"enabled": False}
        switched_off = pilot_environment(ProxyBuild.UPSTREAM).keys() - pilot_environment(
            ProxyBuild.ISTIO
        )
        assert switched_off == {
            "PILOT_ENABLE_METADATA_EXCHANGE",
            "PILOT_ENABLE_ALPN_FILTER",
            "PILOT_ENABLE_TELEMETRY_LABEL",
        }
        assert istiod_values(IstioMeshArgs())["telemetry"] == {"enabled": True}


class TestGateway:
    def test_each_host_has_its_own_server_with_its_certificate_and_modern_tls(self) -> None:
        _, first, second = gateway().one(GATEWAY).inputs["spec"]["servers"]
        assert first["hosts"] == ["tts/a.example.com"]
        assert second["hosts"] == ["*/b.example.com"]
        assert first["tls"] == {
            "mode": "SIMPLE",
            "minProtocolVersion": "TLSV1_2",
            "credentialName": "public-a.example.com",
        }
        assert second["tls"]["credentialName"] == "kept-by-cert-manager"

    def test_plain_http_is_only_redirected(self) -> None:
        servers = gateway().one(GATEWAY).inputs["spec"]["servers"]
        plain = [server for server in servers if server["port"]["protocol"] == "HTTP"]
        assert [server["tls"] for server in plain] == [{"httpsRedirect": True}]

    def test_a_supplied_certificate_becomes_a_tls_secret_whose_data_is_secret(self) -> None:
        secret = gateway().one("kubernetes:core/v1:Secret")
        assert secret.inputs["type"] == "kubernetes.io/tls"
        assert base64.b64decode(secret.inputs["data"]["tls.key"]).decode() == PEM
        assert any("data".startswith(path.split(".")[0]) for path in secret.secret_paths)

    def test_the_gateway_is_served_after_its_pods_and_certificates(self) -> None:
        waits_for(gateway(), GATEWAY, "public", "public", "public-a.example.com")

    def test_pods_meet_the_restricted_standard_and_may_bind_low_ports(self) -> None:
        context = gateway().one(RELEASE).inputs["values"]["securityContext"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]

    def test_pods_are_spread_over_zones_and_nodes(self) -> None:
        values = gateway().one(RELEASE).inputs["values"]
        spread = values["topologySpreadConstraints"]
        over = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert [each["topologyKey"] for each in spread] == over
        for each in spread:
            assert each["labelSelector"]["matchLabels"].items() <= values["labels"].items()
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"

    def test_the_clients_address_is_kept(self) -> None:
        assert (
            gateway().one(RELEASE).inputs["values"]["service"]["externalTrafficPolicy"] == "Local"
        )

    def test_idle_connections_are_closed_before_a_load_balancer_forgets_them(self) -> None:
        environment = gateway().one(RELEASE).inputs["values"]["env"]
        assert 0 < int(environment["ISTIO_META_IDLE_TIMEOUT"].removesuffix("s")) < 350

    def test_node_ports_are_the_ones_asked_for(self) -> None:
        recording = gateway(
            service_type=ServiceType.NODE_PORT, http_node_port=30080, https_node_port=30443
        )
        ports = recording.one(RELEASE).inputs["values"]["service"]["ports"]
        assert [port.get("nodePort") for port in ports] == [None, 30080, 30443]

    def test_pods_that_end_serve_their_streams(self) -> None:
        values = gateway(max_stream_seconds=900).one(RELEASE).inputs["values"]
        assert values["terminationGracePeriodSeconds"] > 900

    def test_pods_that_end_wait_for_connections_of_a_load_balancer_that_has_not_noticed(
        self,
    ) -> None:
        values = gateway(max_stream_seconds=900).one(RELEASE).inputs["values"]
        waits = int(values["env"]["MINIMUM_DRAIN_DURATION"].removesuffix("s"))
        assert waits >= 180
        # A stream may begin at the end of it.
        assert values["terminationGracePeriodSeconds"] > waits + 900

    def test_a_rollout_goes_on_once_the_load_balancer_knows_the_new_pod(self) -> None:
        release = gateway(replicas=3).one(RELEASE).inputs
        assert release["values"]["minReadySeconds"] >= 180
        assert release["timeout"] >= 3 * release["values"]["minReadySeconds"] + 600

    def test_pods_that_no_load_balancer_knows_need_not_wait(self) -> None:
        values = gateway(service_type=ServiceType.NODE_PORT).one(RELEASE).inputs["values"]
        assert "MINIMUM_DRAIN_DURATION" not in values["env"]
        assert values["minReadySeconds"] == 0

    def test_the_load_balancers_address_is_looked_up_only_once_it_can_exist(self) -> None:
        assert _reads_of_gateway(preview=True) == [rpc.UNKNOWN]
        assert _reads_of_gateway(preview=False) == ["istio-ingress/public"]


class TestVoice:
    def test_a_single_canary_pods_requests_go_to_the_others_while_it_is_away(self) -> None:
        stable, canary = voice().one(DESTINATION_RULE).inputs["spec"]["subsets"]
        assert canary["labels"] == {"app": "speech", "voicemesh.io/backup": "true"}
        assert canary["trafficPolicy"]["loadBalancer"]["localityLbSetting"] == {
            "enabled": True,
            "failoverPriority": ["voicemesh.io/variant=experimental"],
        }
        assert stable["labels"] == {"voicemesh.io/variant": "stable"}
        assert "loadBalancer" not in stable["trafficPolicy"]

    def test_no_subset_and_no_selector_depends_on_the_version(self) -> None:
        before = voice()
        after = voice(variants=[replace(STABLE, version="1.1"), EXPERIMENTAL])
        assert _spec(before, DESTINATION_RULE) == _spec(after, DESTINATION_RULE)
        selectors = [
            recording.one(DEPLOYMENT, "speech-stable").inputs["spec"]["selector"]
            for recording in (before, after)
        ]
        assert selectors[0] == selectors[1]

    def test_weights_take_effect_after_every_variant_is_ready(self) -> None:
        recording = voice(
            hosts=["a.example.com"],
            gateway_ref="istio-ingress/public",
            gateway_principal="cluster.local/ns/istio-ingress/sa/public",
            issuers=[LOGIN],
        )
        for routes in recording.of_type(VIRTUAL_SERVICE):
            waits_for(
                recording,
                VIRTUAL_SERVICE,
                routes.name,
                "speech-stable",
                "speech-experimental",
                "speech",
            )

    def test_a_variant_without_weight_gets_no_requests_but_keeps_its_subset(self) -> None:
        variants = [replace(STABLE, weight=100), replace(EXPERIMENTAL, weight=0)]
        recording = voice(variants=variants)
        (route,) = _spec(recording, VIRTUAL_SERVICE)["http"]
        assert [part["destination"]["subset"] for part in route["route"]] == ["stable"]
        assert len(_spec(recording, DESTINATION_RULE)["subsets"]) == 2

    def test_a_voice_without_public_hosts_is_reached_within_the_mesh_only(self) -> None:
        assert _spec(voice(), VIRTUAL_SERVICE)["gateways"] == ["mesh"]

    def test_services_are_known_by_their_full_names(self) -> None:
        assert _spec(voice(), DESTINATION_RULE)["host"] == "speech.tts.svc.cluster.local"

    def test_liveness_does_not_depend_on_the_engine_and_the_start_has_its_budget(self) -> None:
        (container,) = _container(voice(startup_seconds=601))
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 601
        assert startup["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"]
        assert startup["httpGet"]["path"] == "/readyz"
        assert liveness["httpGet"]["path"] == "/healthz"

    def test_the_server_learns_how_long_it_may_drain(self) -> None:
        (container,) = _container(voice(max_stream_seconds=900))
        assert {"name": "SPEECH_DRAIN_SECONDS", "value": "900"} in container["env"]

    def test_the_engine_waits_for_images_and_models(self) -> None:
        timeouts = voice(image_pull_seconds=1000, startup_seconds=500).one(
            DEPLOYMENT, "speech-stable"
        )
        assert timeouts.custom_timeouts["create"] == "1500s"

    def test_an_engine_on_the_cpu_needs_neither_gpu_nor_toleration(self) -> None:
        cpu = replace(STABLE, weight=100, gpu_count=0, accelerator=None)
        recording = voice(variants=[cpu], node_type=None)
        pod = recording.one(DEPLOYMENT).inputs["spec"]["template"]["spec"]
        assert not pod.get("tolerations")
        assert not pod.get("nodeSelector")
        assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["requests"]


class TestStorage:
    @pytest.mark.parametrize("protected", [True, False])
    def test_bucket_and_key_are_protected_as_asked(self, protected: bool) -> None:
        recording = _storage(deletion_protection=protected)
        stateful = ("aws:s3/bucket:Bucket", "aws:kms/key:Key")
        assert [recording.one(type_).protect for type_ in stateful] == [protected] * 2
        assert recording.one(stateful[0]).inputs["forceDestroy"] is not protected

    def test_everything_that_keeps_the_bucket_private_is_on(self) -> None:
        block = _storage().one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
        flags = (
            "blockPublicAcls",
            "blockPublicPolicy",
            "ignorePublicAcls",
            "restrictPublicBuckets",
        )
        assert all(block.inputs[flag] is True for flag in flags)

    def test_rules_for_versions_wait_for_versioning(self) -> None:
        lifecycle = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
        waiting = _storage().one(lifecycle).depends_on
        assert any("BucketVersioning" in urn for urn in waiting)


@pytest.mark.parametrize(
    "component", [IstioMesh, PublicGateway, TenantNamespace, TtsVoiceService, VoiceStorage]
)
def test_arguments_can_be_described_to_other_languages(component: type) -> None:
    schema = json.loads(ComponentProvider([component], "voicemesh", None, "0.1.0").schema or "")
    assert list(schema["resources"]) == [f"voicemesh:index:{component.__name__}"]


def _reads_of_gateway(preview: bool) -> list[str | None]:
    reads: list[str | None] = []

    class Reads(EchoMocks):
        def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict]:
            if args.resource_id:
                reads.append(args.resource_id)
            created = {} if preview else {"status": {}}
            identity, state = super().new_resource(args)
            return identity, {**state, **created}

    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        PublicGateway("public", GATEWAY_ARGS, pulumi.ResourceOptions(providers=[cluster]))

    record(program, resource_mocks=Reads(), preview=preview)
    return reads


def _storage(**arguments: Any) -> Recording:
    return recorded(lambda options: VoiceStorage("voices", VoiceStorageArgs(**arguments), options))


def _spec(recording: Recording, type_: str) -> Any:
    return recording.one(type_).inputs["spec"]


def _container(recording: Recording) -> list[Any]:
    deployment = recording.one(DEPLOYMENT, "speech-stable")
    return deployment.inputs["spec"]["template"]["spec"]["containers"]
