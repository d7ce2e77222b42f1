"""The configuration of an environment: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.environment import Environment, FaultyEnvironmentError, load
from tests.stacks import ROOT, changed, local_values, without

VALID = local_values()
VARIANT = ("voices", 0, "variants", 0)
SECOND_VOICE = {**VALID["voices"][0], "name": "second", "hosts": []}

REFUSALS: list[tuple[dict[str, Any], str]] = [
    (changed(VALID, "layer", to=[]), "voicemesh:layer: unknown key; known ones here are aws, "),
    (
        changed(VALID, "voices", 0, "variant", to=[]),
        "voicemesh:voices[0].variant: unknown key; known ones here are hosts, imagePullSeconds",
    ),
    (
        changed(VALID, *VARIANT, "max_replicas", to=3),
        "voicemesh:voices[0].variants[0].max_replicas: unknown key; known ones here are acceler",
    ),
    (without(VALID, "cluster"), "voicemesh:cluster: missing"),
    (without(VALID, *VARIANT, "image"), "voicemesh:voices[0].variants[0].image: missing"),
    (
        changed(VALID, *VARIANT, "weight", to="90"),
        "voicemesh:voices[0].variants[0].weight: Input should be a valid integer, not '90'",
    ),
    (
        changed(VALID, *VARIANT, "version", to=1.0),
        "voicemesh:voices[0].variants[0].version: Input should be a valid string, not 1.0",
    ),
    (
        changed(VALID, *VARIANT, "weight", to=-1),
        "voicemesh:voices[0].variants[0].weight: Input should be greater than or equal to 0, not",
    ),
    (
        changed(VALID, *VARIANT, "weight", to=80),
        "voicemesh:voices[0]: weights add up to 80 + 10 = 90, not 100",
    ),
    (
        changed(VALID, *VARIANT, "name", to="experimental"),
        "voicemesh:voices[0]: variant 'experimental' is there twice",
    ),
    (
        changed(VALID, *VARIANT, "replicas", to=4),
        'voicemesh:tenants[0].quota.gpus["nvidia.com/gpu"]: allows 4 nvidia.com/gpu, but its '
        "voices need 5",
    ),
    (
        changed(VALID, *VARIANT, "gpuResource", to="nvidia.com/mig-1g.20gb"),
        "voicemesh:tenants[0].quota.gpus: allows no nvidia.com/mig-1g.20gb, but its voices need 2",
    ),
    (
        changed(VALID, "tenants", 0, "quota", "pods", to=2),
        "voicemesh:tenants[0].quota.pods: allows 2 pods, but its voices need 3",
    ),
    (
        changed(VALID, "tenants", 0, "quota", "memoryGib", to=2.25),
        "voicemesh:tenants[0].quota.memoryGib: allows 2304 MiB, but its voices need 2496",
    ),
    (
        changed(VALID, "tenants", 0, "quota", "cpuCores", to=0.3),
        "voicemesh:tenants[0].quota.cpuCores: allows 300 millicores, but its voices need 360",
    ),
    (
        changed(VALID, "tenants", 0, "name", to="istio-system"),
        "voicemesh:tenants[0].name: 'istio-system' is a namespace of the cluster or the mesh",
    ),
    (
        changed(VALID, "tenants", "+", to=VALID["tenants"][0]),
        "voicemesh:tenants: tenant 'tts' is there twice",
    ),
    (
        changed(VALID, "voices", 0, "tenant", to="nobody"),
        "voicemesh:voices[0].tenant: 'nobody' is none of the tenants",
    ),
    (
        changed(VALID, "voices", "+", to={**SECOND_VOICE, "name": "speech"}),
        "voicemesh:voices: tenant 'tts' has voice 'speech' twice",
    ),
    (
        changed(VALID, "voices", "+", to={**SECOND_VOICE, "hosts": VALID["voices"][0]["hosts"]}),
        "voicemesh:voices: host 'tts.voicemesh.localhost' leads to two voices",
    ),
    (
        changed(VALID, "voices", 0, "hosts", to=["other.example.com"]),
        "voicemesh:voices[0].hosts[0]: 'other.example.com' is none of the gateway's hosts",
    ),
    (
        changed(VALID, "gateway", "hosts", 0, "tenant", to="other"),
        "voicemesh:voices[0].hosts[0]: 'tts.voicemesh.localhost' belongs to tenant 'other'",
    ),
    (
        changed(VALID, "gateway", "hosts", "+", to=VALID["gateway"]["hosts"][0]),
        "voicemesh:gateway.hosts: 'tts.voicemesh.localhost' is there twice",
    ),
    (
        changed(VALID, "gateway", "hosts", 0, "name", to="TTS.example.com"),
        "voicemesh:gateway.hosts[0].name: 'TTS.example.com' is no host name in lower case",
    ),
    (
        without(VALID, "gateway", "hosts", 0, "privateKey"),
        "voicemesh:gateway.hosts[0]: needs secretName, or certificate with privateKey",
    ),
    (
        changed(VALID, "gateway", "serviceType", to="ClusterIP"),
        "voicemesh:gateway.serviceType: Input should be 'LoadBalancer' or 'NodePort', not 'Clust",
    ),
    (
        changed(VALID, "gateway", "serviceType", to="LoadBalancer"),
        "voicemesh:gateway: httpNodePort and httpsNodePort need serviceType NodePort",
    ),
    (
        changed(VALID, "gateway", "httpsNodePort", to=443),
        "voicemesh:gateway.httpsNodePort: Input should be greater than or equal to 30000, not 443",
    ),
    (
        changed(VALID, "mesh", "chartVersion", to="1.31.0"),
        "voicemesh:mesh: chartDirectory conflicts with chartRepository and chartVersion",
    ),
    (changed(VALID, "layers", to=[]), "voicemesh:layers: Frozenset should have at least 1 item"),
    (
        changed(VALID, "layers", to=["services"]),
        "voicemesh:layers: services need the platform in the same stack",
    ),
    (
        changed(VALID, "layers", to=["platform"]),
        "voicemesh:layers: tenants and voices are given, but not the layer services",
    ),
    (changed(VALID, "layers", to=["cluster"]), "voicemesh:layers[0]: Input should be 'platform'"),
    (changed(VALID, "aws", to={}), "voicemesh:aws: storage is given, but no AWS region"),
    (
        without(VALID, "aws", "accessKey"),
        "voicemesh:aws: accessKey and secretKey are given together, or neither is",
    ),
    (
        changed(VALID, "maxStreamSeconds", to=0),
        "voicemesh:maxStreamSeconds: Input should be greater than or equal to 1, not 0",
    ),
    (
        changed(VALID, "storage", "bucket", to="ab"),
        "voicemesh:storage.bucket: String should have at least 3 characters, not 'ab'",
    ),
]


def test_the_embedded_environment_is_valid_once_up_has_added_its_secrets() -> None:
    environment = load(VALID)
    assert [variant.weight for variant in environment.voices[0].variants] == [90, 10]


@pytest.mark.parametrize(
    ("values", "message"), REFUSALS, ids=[message[:60] for _, message in REFUSALS]
)
def test_a_mistake_is_refused_with_the_path_of_its_key(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(FaultyEnvironmentError) as refusal:
        load(values)
    assert [fault for fault in refusal.value.faults if fault.startswith(message)], str(
        refusal.value
    )


def test_several_mistakes_are_reported_together() -> None:
    values = changed(VALID, *VARIANT, "weight", to=80)
    values = changed(values, "cluster", "kubecfg", to="x")
    values = without(values, "tenants", 0, "quota", "pods")
    with pytest.raises(FaultyEnvironmentError) as refusal:
        load(values)
    assert {fault.split(": ")[0] for fault in refusal.value.faults} == {
        "voicemesh:voices[0]",
        "voicemesh:cluster.kubecfg",
        "voicemesh:tenants[0].quota.pods",
    }


def test_a_quota_that_its_voices_fill_exactly_is_accepted() -> None:
    exact = {"cpuCores": 0.36, "memoryGib": 2.4375, "pods": 3, "gpus": {"nvidia.com/gpu": 3}}
    assert load(changed(VALID, "tenants", 0, "quota", to=exact))


def test_a_secret_of_the_wrong_type_does_not_show_in_the_refusal() -> None:
    with pytest.raises(FaultyEnvironmentError) as refusal:
        load(changed(VALID, "aws", "secretKey", to=271828))
    assert "voicemesh:aws.secretKey" in str(refusal.value)
    assert "271828" not in str(refusal.value)


def test_an_environment_without_aws_needs_none() -> None:
    environment = load(changed(changed(VALID, "aws", to={}), "storage", to={}))
    assert environment.aws is None
    assert environment.storage is None


@given(replicas=st.integers(1, 50), gpus=st.integers(0, 8), allowed=st.integers(0, 500))
def test_voices_are_accepted_exactly_if_their_gpus_fit_the_quota(
    replicas: int, gpus: int, allowed: int
) -> None:
    values = changed(VALID, *VARIANT, "replicas", to=replicas)
    values = changed(values, *VARIANT, "gpuCount", to=gpus)
    roomy = {"cpuCores": 10**6, "memoryGib": 10**6, "pods": 10**6}
    quota = {**roomy, "gpus": {"nvidia.com/gpu": allowed}}
    assert _loads(changed(values, "tenants", 0, "quota", to=quota)) is (
        replicas * gpus + 1 <= allowed
    )


def test_every_key_of_an_environment_is_declared_in_the_project() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert set(project["config"]) == {field.alias for field in Environment.model_fields.values()}


def _loads(values: dict[str, Any]) -> bool:
    try:
        load(values)
    except FaultyEnvironmentError:
        return False
    return True
