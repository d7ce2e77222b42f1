"""What gateways, voices and meshes declare of who may call."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    GatewayHost,
    IstioMesh,
    IstioMeshArgs,
    PublicGateway,
    PublicGatewayArgs,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceAccess,
    VoiceVariant,
)
from voicemesh.testing import Recording, record

LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
GATEWAY = "cluster.local/ns/istio-ingress/sa/public"
SECURITY = "kubernetes:security.istio.io/v1"
AUTHORIZATION = f"{SECURITY}:AuthorizationPolicy"
AUTHENTICATION = f"{SECURITY}:RequestAuthentication"
FILTER = "kubernetes:networking.istio.io/v1alpha3:EnvoyFilter"
ENTRY = "kubernetes:networking.istio.io/v1:ServiceEntry"
RULE = "kubernetes:networking.istio.io/v1:DestinationRule"


def recorded(component: type[Any], name: str, args: Any) -> Recording:
    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        component(name, args, pulumi.ResourceOptions(provider=cluster))

    return record(program)


def gateway() -> Recording:
    hosts = [GatewayHost("a.example.com", secret_name="kept-elsewhere")]
    return recorded(PublicGateway, "public", PublicGatewayArgs(hosts=hosts, issuers=[LOGIN]))


def voice(**arguments: Any) -> Recording:
    variants = [VoiceVariant("stable", "1", "speech:1")]
    return recorded(TtsVoiceService, "speech", TtsVoiceServiceArgs("tts", variants, **arguments))


def public_voice(**arguments: Any) -> Recording:
    return voice(
        hosts=["a.example.com"],
        gateway_ref="istio-ingress/public",
        gateway_principal=GATEWAY,
        issuers=[LOGIN],
        **arguments,
    )


def waited_for(recording: Recording, type_: str, name: str) -> set[str]:
    return {urn.rsplit("$", 1)[-1] for urn in recording.one(type_, name).depends_on}


def test_no_host_is_served_before_tokens_are_asked_for() -> None:
    waits = waited_for(gateway(), "kubernetes:networking.istio.io/v1:Gateway", "public")
    assert {
        f"{AUTHENTICATION}::public",
        f"{AUTHORIZATION}::public-token",
        f"{FILTER}::public-identity",
    } <= waits


def test_no_voice_is_reached_before_its_policy_is_there() -> None:
    recording = public_voice()
    for name in ("speech-public", "speech-mesh"):
        routes = "kubernetes:networking.istio.io/v1:VirtualService"
        waits = waited_for(recording, routes, name)
        assert {
            f"{AUTHENTICATION}::speech",
            f"{AUTHORIZATION}::speech",
            f"{FILTER}::speech-identity",
        } <= waits


def test_what_is_asked_of_tokens_is_asked_of_the_voices_pods() -> None:
    recording = public_voice()
    for type_ in (AUTHENTICATION, AUTHORIZATION):
        selector = recording.one(type_, "speech").inputs["spec"]["selector"]
        assert selector == {"matchLabels": {"app": "speech"}}
    filters = recording.one(FILTER, "speech-identity").inputs["spec"]
    assert filters["workloadSelector"] == {"labels": {"app": "speech"}}


def test_the_server_knows_whom_to_believe() -> None:
    (deployment,) = public_voice().of_type("kubernetes:apps/v1:Deployment")
    (server,) = deployment.inputs["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in server["env"]}
    assert variables["SPEECH_GATEWAY_PRINCIPAL"] == GATEWAY


def test_a_voice_of_the_mesh_alone_has_no_gateway_and_verifies_no_token() -> None:
    editor = "cluster.local/ns/studio/sa/editor"
    recording = voice(access=VoiceAccess(callers=[editor]), issuers=[LOGIN])
    assert not recording.of_type(AUTHENTICATION)
    (rule,) = recording.one(AUTHORIZATION, "speech").inputs["spec"]["rules"]
    assert rule == {"from": [{"source": {"principals": [editor]}}]}


def test_pages_of_other_origins_are_named() -> None:
    recording = public_voice(allowed_origins=["https://studio.example.com"])
    routes = recording.one("kubernetes:networking.istio.io/v1:VirtualService", "speech-public")
    for route in routes.inputs["spec"]["http"]:
        assert route["corsPolicy"]["allowOrigins"] == [{"exact": "https://studio.example.com"}]
    (route,) = recording.one(
        "kubernetes:networking.istio.io/v1:VirtualService", "speech-mesh"
    ).inputs["spec"]["http"]
    assert "corsPolicy" not in route
    assert "headers" not in route


def test_the_mesh_knows_issuers_outside_it() -> None:
    recording = recorded(IstioMesh, "mesh", IstioMeshArgs(issuers=[LOGIN]))
    name = "mesh-issuer-login.example.com"
    assert recording.one(ENTRY, name).inputs["metadata"]["namespace"] == "istio-system"
    assert recording.one(RULE, name).inputs["spec"]["host"] == "login.example.com"
