"""What a program in another language sends becomes the arguments that the components take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc

from tests.preview import rules
from voicemesh import ArgumentsError, ServiceType, VoiceVariant, package
from voicemesh.testing import Recording, record

VARIANT = {"name": "stable", "version": "1.0", "image": "registry.example.com/speech:1.0"}
VOICE = {"namespace": "tts", "variants": [VARIANT]}
ISSUER = {"issuer": "https://login", "jwksUri": "https://login/keys", "audiences": ["voices"]}
PEM = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"


def construct(component: str, inputs: Mapping[str, Any], *exported: str) -> Recording:
    """What the engine is asked for when a component is constructed, its outputs exported."""

    def program() -> None:
        token = f"{package.NAME}:index:{component}"
        result = package.VoicemeshProvider().construct("it", token, inputs)
        for name in exported:
            pulumi.export(name, result.state[name])

    return record(program)


def refusal(component: str, inputs: Mapping[str, Any]) -> dict[str, str]:
    """The reason why each property is refused, by its path."""
    with pytest.raises(ArgumentsError) as caught:
        construct(component, inputs)
    assert str(caught.value).count(f"{component}: ") == len(caught.value.errors or [])
    return {fault["property_path"]: fault["reason"] for fault in caught.value.errors or []}


def test_nested_arguments_become_the_classes_of_the_library() -> None:
    read = package.read_arguments(
        package.voicemesh.TtsVoiceService,
        {
            "namespace": "tts",
            "variants": [{**VARIANT, "size": {"cpuCores": 3, "memoryGib": 24.5}, "gpuCount": 2.0}],
            "maxStreamSeconds": 60.0,
        },
    )
    assert isinstance(read.variants[0], VoiceVariant)
    assert (read.variants[0].size.cpu_cores, read.variants[0].gpu_count) == (3, 2)
    assert repr(read.max_stream_seconds) == "60"
    assert read.startup_seconds == type(read).startup_seconds


def test_a_component_is_declared_as_a_python_program_would_and_has_its_outputs() -> None:
    inputs = {"name": "acme", "quota": {"cpuCores": 8, "memoryGib": 16, "pods": 10}}
    recording = construct("TenantNamespace", inputs, "namespace", "serviceAccount")
    assert recording.exports["namespace"] == "acme"
    assert recording.exports["serviceAccount"]
    quota = recording.one("kubernetes:core/v1:ResourceQuota")
    assert quota.inputs["spec"]["hard"]["requests.memory"] == "16Gi"
    assert list(rules.every_component_registers_outputs(recording)) == []


def test_an_enumeration_is_given_by_its_value() -> None:
    gateway = package.voicemesh.PublicGateway
    given = {"hosts": [{"name": "tts.example.com", "secretName": "tts"}], "issuers": [ISSUER]}
    read = package.read_arguments(gateway, {**given, "serviceType": "NodePort"})
    assert read.service_type is ServiceType.NODE_PORT
    assert refusal("PublicGateway", {**given, "serviceType": "ExternalName"}) == {
        "serviceType": "is 'ExternalName'; allowed: 'LoadBalancer', 'NodePort'"
    }


def test_outputs_and_secrets_stay_what_they_are() -> None:
    def program() -> None:
        host = {
            "name": "tts.example.com",
            "certificate": pulumi.Output.from_input("-----BEGIN CERTIFICATE-----"),
            "privateKey": pulumi.Output.secret(PEM),
        }
        package.VoicemeshProvider().construct(
            "it", "voicemesh:index:PublicGateway", {"hosts": [host], "issuers": [ISSUER]}
        )

    recording = record(program)
    assert recording.one("kubernetes:core/v1:Secret").secret_paths
    assert list(rules.secrets_stay_secret("hunter2")(recording)) == []


def test_what_is_unknown_at_preview_stays_unknown() -> None:
    recording = construct("TtsVoiceService", {**VOICE, "namespace": pulumi.UNKNOWN})
    metadata = recording.one("kubernetes:core/v1:Service").inputs["metadata"]
    assert metadata["name"] == "it"
    assert metadata["namespace"] == rpc.UNKNOWN


def test_an_output_where_a_value_must_be_known_is_refused_by_name() -> None:
    weight = {**VARIANT, "weight": pulumi.UNKNOWN}
    assert refusal("TtsVoiceService", {**VOICE, "variants": [weight]}) == {
        "variants[0].weight": "is an output; allowed: what is known when the program runs"
    }


def test_all_faults_of_form_are_reported_at_once_under_the_callers_names() -> None:
    faulty = {
        "variants": [
            {"name": "stable", "image": "i:1", "gpuCount": 1.5, "gpu_count": 1, "size": 3}
        ],
        "hosts": "tts.example.com",
        "connectionLimits": {"maxConnections": True},
    }
    assert refusal("TtsVoiceService", faulty) == {
        "namespace": "is missing",
        "variants[0].version": "is missing",
        "variants[0].gpuCount": "is 1.5; allowed: a whole number",
        "variants[0].gpu_count": "is no argument; there are "
        + ", ".join(package.schema()["types"]["voicemesh:index:VoiceVariant"]["properties"]),
        "variants[0].size": "is 3; allowed: an object",
        "hosts": "is 'tts.example.com'; allowed: a list",
        "connectionLimits.maxConnections": "is True; allowed: a whole number",
    }


def test_what_a_component_refuses_is_reported_under_the_callers_names() -> None:
    variants = [{**VARIANT, "gpuCount": -1}]
    faults = refusal("TtsVoiceService", {**VOICE, "variants": variants, "maxStreamSeconds": 0})
    assert set(faults) == {"variants[0].gpuCount", "maxStreamSeconds"}
    charts = {"directory": "charts", "version": "1.31.0"}
    assert refusal("IstioMesh", {"charts": charts}) == {
        "charts.version": "is '1.31.0'; allowed: nothing, since charts.directory is given"
    }


def test_keys_of_maps_are_not_names_of_arguments() -> None:
    quota = {"cpuCores": 1, "memoryGib": 1, "pods": 1, "gpus": {"my_gpu": -1}}
    faults = refusal("TenantNamespace", {"name": "acme", "quota": quota})
    assert "quota.gpus[my_gpu]" in faults


def test_an_empty_value_stands_for_none_where_none_is_not_the_default() -> None:
    service = package.voicemesh.TtsVoiceService
    variant = {**VARIANT, "accelerator": "", "gpuCount": 0}
    read = package.read_arguments(service, {**VOICE, "nodeType": "", "variants": [variant]})
    assert (read.node_type, read.variants[0].accelerator) == (None, None)
    assert read.variants[0].gpu_count == 0
    assert package.read_arguments(service, VOICE).node_type is not None
