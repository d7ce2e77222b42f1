"""Arguments that no component can work with are refused when they are made, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, cast, get_origin

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicemesh import (
    ArgumentsError,
    Autoscaling,
    ChartSource,
    ComputeSize,
    ConnectionLimits,
    Ejection,
    GatewayHost,
    IstioMeshArgs,
    Mirroring,
    ModelWeights,
    ObjectStorage,
    OutputStorage,
    PublicGatewayArgs,
    ServiceType,
    TenantNamespaceArgs,
    TenantQuota,
    TokenIssuer,
    TtsVoiceServiceArgs,
    VoiceAccess,
    VoiceStorageArgs,
    VoiceVariant,
    package,
)
from voicemesh.testing import record

PEM = "-----BEGIN SOMETHING-----"
LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
HOST = GatewayHost("tts.example.com", certificate=PEM, private_key=PEM)
STABLE = VoiceVariant("stable", "1.0", "speech:1", weight=90, replicas=2)
WEIGHTS = ModelWeights("s3://voices/models/choir/1.0/", "0" * 64, size_gib=24)
EXPERIMENTAL = VoiceVariant("experimental", "2.0-beta", "speech:2", weight=10)

VALID: dict[type, Any] = {
    IstioMeshArgs: IstioMeshArgs(),
    PublicGatewayArgs: PublicGatewayArgs(hosts=[HOST], issuers=[LOGIN]),
    TenantNamespaceArgs: TenantNamespaceArgs("tts", TenantQuota(4, 8, 20, {"nvidia.com/gpu": 4})),
    VoiceStorageArgs: VoiceStorageArgs(),
    TtsVoiceServiceArgs: TtsVoiceServiceArgs(
        namespace="tts",
        variants=[STABLE, EXPERIMENTAL],
        hosts=["tts.example.com"],
        gateway_ref="istio-ingress/public",
        gateway_principal="cluster.local/ns/istio-ingress/sa/public",
        issuers=[LOGIN],
    ),
}

REFUSALS = [
    (IstioMeshArgs, {"max_stream_seconds": 0}, "max_stream_seconds is 0; allowed: a whole"),
    (IstioMeshArgs, {"istiod_replicas": 0}, "istiod_replicas is 0"),
    (IstioMeshArgs, {"proxy_build": "vanilla"}, "proxy_build is 'vanilla'; allowed: ProxyBuild."),
    (
        IstioMeshArgs,
        {"charts": ChartSource(directory="/charts", version="1.31.0")},
        "charts.version is '1.31.0'; allowed: nothing, since charts.directory is given",
    ),
    (IstioMeshArgs, {"sidecar": ComputeSize(0, 1)}, "sidecar.cpu_cores is 0"),
    (PublicGatewayArgs, {"hosts": []}, "hosts is []; allowed: at least one host"),
    (PublicGatewayArgs, {"hosts": [HOST, HOST]}, "hosts is 'tts.example.com'; allowed: each host"),
    (
        PublicGatewayArgs,
        {"hosts": [replace(HOST, name="*.example.com")]},
        "hosts[0].name is '*.example.com'; allowed: a host name",
    ),
    (
        PublicGatewayArgs,
        {"hosts": [replace(HOST, private_key=None)]},
        "hosts[0].secret_name is None; allowed: one of issuer, secret_name, and certificate with "
        "private_key",
    ),
    (
        PublicGatewayArgs,
        {"hosts": [replace(HOST, secret_name="tls")]},
        "hosts[0].secret_name is 'tls'",
    ),
    (
        PublicGatewayArgs,
        {"hosts": [replace(HOST, private_key="hunter2")]},
        "hosts[0].private_key is '(not shown)'; allowed: PEM text",
    ),
    (
        PublicGatewayArgs,
        {"http_node_port": 30080},
        "http_node_port is 30080; allowed: nothing, unless service_type is NODE_PORT",
    ),
    (
        PublicGatewayArgs,
        {"service_type": ServiceType.NODE_PORT, "https_node_port": 443},
        "https_node_port is 443; allowed: 30000 to 32767",
    ),
    (TenantNamespaceArgs, {"name": "Tenant_A"}, "name is 'Tenant_A'; allowed: up to 63 of a-z"),
    (TenantNamespaceArgs, {"quota": TenantQuota(4, -1, 20)}, "quota.memory_gib is -1"),
    (
        TenantNamespaceArgs,
        {"quota": TenantQuota(4, 8, cast(Any, 1.5))},
        "quota.pods is 1.5; allowed: a whole number ≥ 0",
    ),
    (
        TenantNamespaceArgs,
        {"quota": TenantQuota(4, 8, 20, {"nvidia.com/gpu": cast(Any, 0.5)})},
        "quota.gpus[nvidia.com/gpu] is 0.5; allowed: a whole number ≥ 0",
    ),
    (IstioMeshArgs, {"istiod_replicas": 1.5}, "istiod_replicas is 1.5; allowed: a whole number"),
    (PublicGatewayArgs, {"replicas": 1.5}, "replicas is 1.5; allowed: a whole number ≥ 1"),
    (PublicGatewayArgs, {"max_stream_seconds": 0.5}, "max_stream_seconds is 0.5; allowed: a whole"),
    (
        TenantNamespaceArgs,
        {"quota": TenantQuota(4, 8, 20, {"gpu": 1})},
        "quota.gpus is 'gpu'; allowed: a name as in nvidia.com/gpu",
    ),
    (
        TenantNamespaceArgs,
        {"quota": TenantQuota(4, 8, 20, {"requests.nvidia.com/gpu": 1})},
        "quota.gpus is 'requests.nvidia.com/gpu'",
    ),
    (VoiceStorageArgs, {"bucket_name": "Voices"}, "bucket_name is 'Voices'"),
    (VoiceStorageArgs, {"bucket_name": "ab"}, "bucket_name is 'ab'; allowed: 3 to 63 characters"),
    (VoiceStorageArgs, {"output_days": 0}, "output_days is 0"),
    (TtsVoiceServiceArgs, {"variants": []}, "variants is []; allowed: at least one variant"),
    (
        TtsVoiceServiceArgs,
        {"service_name": "1-voice"},
        "service_name is '1-voice'; allowed: up to 63 of a-z, 0-9 and '-', a letter first",
    ),
    (
        TtsVoiceServiceArgs,
        {"service_name": "v" * 34},
        f"service_name is '{'v' * 34}'; allowed: up to 33 characters, beside the names of",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE]},
        "variants is '90'; allowed: weights that add up to 100",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE, replace(EXPERIMENTAL, weight=101)]},
        "variants[1].weight is 101; allowed: a whole number from 0 to 100",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE, replace(EXPERIMENTAL, name="stable")]},
        "variants is 'stable'; allowed: each name once",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE, replace(EXPERIMENTAL, version="2.0 beta")]},
        "variants[1].version is '2.0 beta'",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE, replace(EXPERIMENTAL, replicas=0)]},
        "variants[1].replicas is 0; allowed: a whole number ≥ 1",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [replace(STABLE, environment={"SPEECH_DRAIN_SECONDS": "1"}), EXPERIMENTAL]},
        "variants[0].environment is 'SPEECH_DRAIN_SECONDS'; allowed: max_stream_seconds instead",
    ),
    *(
        (
            TtsVoiceServiceArgs,
            {"variants": [replace(STABLE, **change), EXPERIMENTAL]},
            f"variants[0].{message}",
        )
        for change, message in [
            ({"name": "st-able"}, "name is 'st-able'; allowed: up to 32 of a-z and 0-9"),
            ({"image": "speech"}, "image is 'speech'; allowed: a tag other than 'latest', or a di"),
            ({"image": "speech:latest"}, "image is 'speech:latest'; allowed: a tag other than"),
            ({"image": "registry:5000/speech"}, "image is 'registry:5000/speech'; allowed: a tag"),
            ({"image": "speech@sha256:abc"}, "image is 'speech@sha256:abc'; allowed: a tag"),
            ({"accelerator": "h 100"}, "accelerator is 'h 100'"),
            (
                {"gpu_resource": "gpu"},
                "gpu_resource is 'gpu'; allowed: a name as in nvidia.com/gpu",
            ),
            (
                {"node_selector": {"node-type": "offline-inference"}},
                "node_selector[node-type] is 'offline-inference'; allowed: node_type instead",
            ),
            (
                {"node_selector": {"po ol": "a"}},
                "node_selector[po ol] is 'po ol'; allowed: a label",
            ),
            (
                {"autoscaling": Autoscaling(1, 2)},
                "replicas is 2; allowed: nothing, since autoscaling is given",
            ),
            (
                {"replicas": None, "autoscaling": Autoscaling(4, 2)},
                "autoscaling.max_replicas is 2; allowed: a whole number ≥ 4",
            ),
            (
                {"replicas": None, "autoscaling": Autoscaling(0, 2)},
                "autoscaling.min_replicas is 0; allowed: a whole number ≥ 1",
            ),
            (
                {"replicas": None, "autoscaling": Autoscaling(1, 2, gpu_utilization_percent=0)},
                "autoscaling.gpu_utilization_percent is 0; allowed: a whole number from 1 to",
            ),
            (
                {
                    "replicas": None,
                    "autoscaling": Autoscaling(1, 2, scale_down_stabilization_seconds=3601),
                },
                "autoscaling.scale_down_stabilization_seconds is 3601; allowed: a whole number",
            ),
            (
                {"model": ModelWeights("s3://voices/models", "0" * 64, 1)},
                "model.uri is 's3://voices/models'; allowed: as in 's3://bucket/models/name/1.0/'",
            ),
            (
                {"model": ModelWeights("s3://voices/models/1/", "abc", 1)},
                "model.sha256 is 'abc'; allowed: the 64 hexadecimal digits",
            ),
            (
                {"model": ModelWeights("s3://voices/models/1/", "0" * 64, 0)},
                "model.size_gib is 0; allowed: a number ≥ 0.001",
            ),
            (
                {"environment": {"SPEECH_MODEL_DIRECTORY": "/mine"}},
                "environment is 'SPEECH_MODEL_DIRECTORY'; allowed: model instead",
            ),
        ]
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [replace(STABLE, model=WEIGHTS), EXPERIMENTAL]},
        "object_storage is None; allowed: a way to reach S3, for variants[0].model",
    ),
    (
        TtsVoiceServiceArgs,
        {"outputs": OutputStorage(bucket="voices")},
        "object_storage is None; allowed: a way to reach S3, for outputs.bucket",
    ),
    (
        TtsVoiceServiceArgs,
        {"outputs": OutputStorage()},
        "outputs.bucket is None; allowed: either bucket or claim_name",
    ),
    (
        TtsVoiceServiceArgs,
        {"outputs": OutputStorage(claim_name="Outputs")},
        "outputs.claim_name is 'Outputs'",
    ),
    (
        TtsVoiceServiceArgs,
        {"object_storage": ObjectStorage("eu-central-1", "minio:9000")},
        "object_storage.endpoint_url is 'minio:9000'; allowed: a URL as in",
    ),
    (
        TtsVoiceServiceArgs,
        {
            "object_storage": ObjectStorage(
                "eu-central-1", role_arn="arn:aws:iam::1:role/a", credentials_secret="s3"
            )
        },
        "object_storage.credentials_secret is 's3'; allowed: nothing, since role_arn is given",
    ),
    (
        TtsVoiceServiceArgs,
        {"vip_variant": "gold"},
        "vip_variant is 'gold'; allowed: one of stable, experimental",
    ),
    (
        TtsVoiceServiceArgs,
        {"experiments": ["stable", "gold"]},
        "experiments[1] is 'gold'; allowed: one of stable, experimental",
    ),
    (
        TtsVoiceServiceArgs,
        {"experiments": ["stable", "stable"]},
        "experiments is 'stable'; allowed: each variant once",
    ),
    (
        TtsVoiceServiceArgs,
        {"mirroring": Mirroring("experimental", 5)},
        "mirroring.variant is 'experimental'; allowed: a variant of weight 0: there is none",
    ),
    (
        TtsVoiceServiceArgs,
        {"mirroring": Mirroring("experimental", 0)},
        "mirroring.percent is 0; allowed: a number above 0, and up to 100",
    ),
    (
        TtsVoiceServiceArgs,
        {"node_type": "offline-inference"},
        "node_type is 'offline-inference'; allowed: a type whose nodes voices may run on",
    ),
    (TtsVoiceServiceArgs, {"scaler": "keda"}, "scaler is 'keda'; allowed: Scaler.KEDA, Scaler.CPU"),
    (
        TtsVoiceServiceArgs,
        {"prometheus_url": "prometheus"},
        "prometheus_url is 'prometheus'; allowed: a URL as in",
    ),
    (
        TtsVoiceServiceArgs,
        {"gateway_ref": None},
        "gateway_ref is None; allowed: a gateway, since hosts are given",
    ),
    (
        TtsVoiceServiceArgs,
        {"gateway_principal": None},
        "gateway_principal is None; allowed: the gateway's identity, since hosts are given",
    ),
    (
        TtsVoiceServiceArgs,
        {"issuers": []},
        "issuers is []; allowed: at least one issuer of tokens, since hosts are given",
    ),
    (
        TtsVoiceServiceArgs,
        {"allowed_origins": ["https://studio.example.com/"]},
        "allowed_origins[0] is 'https://studio.example.com/'; allowed: an origin as in",
    ),
    (
        TtsVoiceServiceArgs,
        {"access": VoiceAccess(callers=["ns/studio/sa/editor"])},
        "access.callers[0] is 'ns/studio/sa/editor'; allowed: an identity as in",
    ),
    (
        TtsVoiceServiceArgs,
        {"access": VoiceAccess(tenants=["acme*"])},
        "access.tenants[0] is 'acme*'; allowed: a name without blanks and wildcards",
    ),
    (
        TtsVoiceServiceArgs,
        {"access": VoiceAccess(voices_scopes=["tts.premium tts.admin"])},
        "access.voices_scopes[0] is 'tts.premium tts.admin'; allowed: a name without blanks",
    ),
    (PublicGatewayArgs, {"issuers": []}, "issuers is []; allowed: at least one issuer of tokens"),
    (
        PublicGatewayArgs,
        {"issuers": [LOGIN, LOGIN]},
        "issuers is 'https://login.example.com'; allowed: each issuer once",
    ),
    (
        PublicGatewayArgs,
        {"issuers": [LOGIN, replace(LOGIN, issuer="b", jwks_uri="http://login.example.com/keys")]},
        "issuers is 'login.example.com'; allowed: each host of keys by one scheme and port once",
    ),
    (
        PublicGatewayArgs,
        {"issuers": [replace(LOGIN, audiences=[])]},
        "issuers[0].audiences is []; allowed: at least one audience",
    ),
    (
        PublicGatewayArgs,
        {"issuers": [replace(LOGIN, issuer=" ")]},
        "issuers[0].issuer is ' '; allowed: the claim `iss` of its tokens",
    ),
    (
        IstioMeshArgs,
        {"issuers": [replace(LOGIN, jwks_uri="login.example.com/keys")]},
        "issuers[0].jwks_uri is 'login.example.com/keys'; allowed: a URL as in",
    ),
    (
        IstioMeshArgs,
        {"issuers": [replace(LOGIN, jwks_uri="https://login.example.com:65536/keys")]},
        "issuers[0].jwks_uri is 'https://login.example.com:65536/keys'; allowed: a URL as in",
    ),
    (TtsVoiceServiceArgs, {"hosts": ["tts"]}, "hosts[0] is 'tts'; allowed: a host name"),
    (TtsVoiceServiceArgs, {"startup_seconds": True}, "startup_seconds is True"),
    (
        TtsVoiceServiceArgs,
        {"connection_limits": ConnectionLimits(max_requests=0)},
        "connection_limits.max_requests is 0",
    ),
    (
        TtsVoiceServiceArgs,
        {"connection_limits": ConnectionLimits(max_requests_per_connection=-1)},
        "connection_limits.max_requests_per_connection is -1",
    ),
    (
        TtsVoiceServiceArgs,
        {"ejection": Ejection(consecutive_errors=0)},
        "ejection.consecutive_errors is 0",
    ),
    (
        TtsVoiceServiceArgs,
        {"ejection": Ejection(base_seconds=0, interval_seconds=0)},
        "ejection.base_seconds is 0",
    ),
    (
        TtsVoiceServiceArgs,
        {"ejection": Ejection(max_percent=0)},
        "ejection.max_percent is 0; allowed: None, or a whole number from 1 to 100",
    ),
    (TtsVoiceServiceArgs, {"warmup_seconds": -1}, "warmup_seconds is -1"),
]


@pytest.mark.parametrize("args_class", list(VALID), ids=lambda cls: cls.__name__)
def test_valid_arguments_are_accepted_and_frozen(args_class: type) -> None:
    with pytest.raises(FrozenInstanceError):
        VALID[args_class].anything = 1


@pytest.mark.parametrize(
    ("args_class", "change", "message"),
    REFUSALS,
    ids=[f"{cls.__name__}-{message[:40]}" for cls, _, message in REFUSALS],
)
def test_a_fault_is_reported_with_component_argument_value_and_what_is_allowed(
    args_class: type, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentsError) as refusal:
        replace(VALID[args_class], **change)
    component = args_class.__name__.removesuffix("Args")
    assert f"{component}: {message}" in str(refusal.value)


FORMS = [
    (
        TtsVoiceServiceArgs,
        {"hosts": "tts.example.com"},
        "hosts is 'tts.example.com'; allowed: a list, as in ['tts.example.com']",
    ),
    (TtsVoiceServiceArgs, {"hosts": None}, "hosts is None; allowed: a list"),
    (
        TtsVoiceServiceArgs,
        {"variants": STABLE},
        "variants is of type VoiceVariant; allowed: a list",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [STABLE, {"name": "canary"}]},
        "variants[1] is of type dict; allowed: VoiceVariant(…)",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [replace(STABLE, size=(1, 2))]},
        "variants[0].size is of type tuple; allowed: ComputeSize(…)",
    ),
    (
        TtsVoiceServiceArgs,
        {"variants": [replace(STABLE, environment={"SPEECH_MAX_QUEUE": 10})]},
        "variants[0].environment[SPEECH_MAX_QUEUE] is of type int; allowed: a text",
    ),
    (TtsVoiceServiceArgs, {"outputs": "s3"}, "outputs is of type str; allowed: OutputStorage(…)"),
    (TenantNamespaceArgs, {"quota": None}, "quota is None; allowed: TenantQuota(…)"),
    (
        TenantNamespaceArgs,
        {"quota": TenantQuota(4, 8, 20, gpus=cast(Any, 4))},
        "quota.gpus is of type int; allowed: a mapping",
    ),
    (
        PublicGatewayArgs,
        {"hosts": [{"name": "tts.example.com", "private_key": "hunter2"}]},
        "hosts[0] is of type dict; allowed: GatewayHost(…)",
    ),
]


@pytest.mark.parametrize(
    ("args_class", "change", "message"), FORMS, ids=[message for _, _, message in FORMS]
)
def test_what_has_not_the_form_of_the_argument_is_refused_before_anything_looks_into_it(
    args_class: type, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentsError) as refusal:
        replace(VALID[args_class], **change)
    assert str(refusal.value) == f"{args_class.__name__.removesuffix('Args')}: {message}"


@pytest.mark.parametrize("component", package.components(), ids=lambda class_: class_.__name__)
def test_every_component_refuses_a_text_in_place_of_a_list(component: package.Component) -> None:
    arguments = package.arguments_class(component)
    known = dict.fromkeys((f.name for f in fields(arguments) if package.is_required(f)), "known")
    lists = [f.name for f in fields(arguments) if get_origin(f.type) is Sequence]
    for name in lists:
        with pytest.raises(ArgumentsError, match=rf"\b{name} is 'known'; allowed: a list"):
            arguments(**{**known, name: "known"})


def test_all_faults_are_reported_together_with_their_paths() -> None:
    with pytest.raises(ArgumentsError) as refusal:
        TtsVoiceServiceArgs(namespace="TTS", variants=[replace(STABLE, weight=100, replicas=0)])
    assert refusal.value.errors is not None
    paths = [fault["property_path"] for fault in refusal.value.errors]
    assert paths == ["namespace", "variants[0].replicas"]


def test_what_is_known_only_later_is_accepted() -> None:
    def program() -> None:
        later = pulumi.Output.from_input("Not A Name")
        variant = replace(STABLE, weight=100, image=later)
        TtsVoiceServiceArgs(namespace=later, variants=[variant])

    record(program)


@pytest.mark.parametrize(
    "image",
    [
        "speech:1.2",
        "registry:5000/team/speech:1.2",
        f"speech@sha256:{'0' * 64}",
        f"registry:5000/speech:latest@sha256:{'0' * 64}",
    ],
)
def test_an_image_is_pinned_by_a_tag_or_a_digest(image: str) -> None:
    TtsVoiceServiceArgs("tts", [replace(STABLE, weight=100, image=image)])


def test_a_private_key_does_not_show_in_the_repr_of_its_host() -> None:
    assert "hunter2" not in repr(replace(HOST, private_key=f"{PEM}hunter2"))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_weights_are_accepted_exactly_if_they_add_up_to_one_hundred(weights: list[int]) -> None:
    variants = [
        replace(STABLE, name=f"v{index}", weight=weight) for index, weight in enumerate(weights)
    ]
    assert _accepts(lambda: TtsVoiceServiceArgs("tts", variants)) is (sum(weights) == 100)


def _accepts(make: Callable[[], object]) -> bool:
    try:
        make()
    except ArgumentsError:
        return False
    return True
