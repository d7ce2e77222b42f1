"""What a firewall becomes: options of its service, a policy, a setting of the mesh."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.waf import corpus
from voicemesh import (
    ArgumentsError,
    GatewayHost,
    IstioMeshArgs,
    PublicGatewayArgs,
    TokenIssuer,
    WafProvider,
    WebApplicationFirewall,
)
from voicemesh.contract import BATCH_PATH, HEALTH_PATH, SPEECH_PATH, TTS_PATH, VOICES_PATH
from voicemesh.gateway.waf import SPOKEN_FIELDS, check_policy, service_options
from voicemesh.mesh import mesh_config

HOSTS = [GatewayHost("a.example.com", secret_name="kept-elsewhere")]
ISSUERS = [
    TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
]
IMAGE = "registry.example.com/waf:4.25.0"


def provider(**fields: Any) -> dict[str, Any]:
    (made,) = mesh_config(600, [WafProvider(**fields)])["extensionProviders"]
    return made


def test_a_mesh_without_firewalls_names_none() -> None:
    assert "extensionProviders" not in mesh_config(600)


def test_policy_and_mesh_mean_the_same_firewall() -> None:
    policy = check_policy("public", "lab")
    assert policy.get("provider") == {"name": provider(namespace="lab")["name"]}
    assert provider()["envoyExtAuthzGrpc"]["service"] == "waf.istio-ingress.svc.cluster.local"


def test_two_gateways_have_firewalls_of_their_own() -> None:
    made = mesh_config(600, [WafProvider(), WafProvider("other")])["extensionProviders"]
    assert len({each["name"] for each in made}) == 2


def test_a_firewall_that_does_not_answer_lets_nothing_through_unless_told_so() -> None:
    assert provider()["envoyExtAuthzGrpc"]["failOpen"] is False
    assert provider()["envoyExtAuthzGrpc"]["statusOnError"] == "503"
    assert provider(fail_open=True)["envoyExtAuthzGrpc"]["failOpen"] is True


def test_a_body_is_shown_up_to_its_bound_and_uploads_stream_on() -> None:
    shown = provider(max_body_kib=64)["envoyExtAuthzGrpc"]["includeRequestBodyInCheck"]
    assert shown == {"maxRequestBytes": 65536, "allowPartialMessage": True, "packAsBytes": True}


def test_all_but_health_is_shown_to_the_firewall() -> None:
    (rule,) = check_policy("public", "lab").get("rules", [])
    (to,) = rule.get("to", [])
    assert to["operation"].get("notPaths") == [HEALTH_PATH]
    assert check_policy("public", "lab").get("action") == "CUSTOM"


def test_the_service_gets_what_was_asked_for() -> None:
    options = service_options(
        WebApplicationFirewall(IMAGE, paranoia_level=2, detection_only=True, max_upload_mib=1)
    )
    assert {
        "-paranoia-level=2",
        "-anomaly-threshold=5",
        "-detection-only",
        "-max-upload-bytes=1048576",
        f"-upload-path={VOICES_PATH}",
        f"-spoken={SPEECH_PATH}=input,instructions",
    } <= set(options)
    assert "-detection-only" not in service_options(WebApplicationFirewall(IMAGE))


def test_every_path_that_speaks_has_its_spoken_fields() -> None:
    assert SPOKEN_FIELDS.keys() == {SPEECH_PATH, TTS_PATH, BATCH_PATH}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image": "registry.example.com/waf"}, "waf.image is .* with tag or digest"),
        ({"paranoia_level": 0}, "waf.paranoia_level is 0; allowed: a whole number ≥ 1"),
        ({"paranoia_level": 5}, "waf.paranoia_level is 5; allowed: at most 4"),
        ({"anomaly_threshold": 0}, "waf.anomaly_threshold is 0"),
        ({"replicas": 0}, "waf.replicas is 0"),
        ({"max_upload_mib": 0}, "waf.max_upload_mib is 0"),
        ({"max_spoken_characters": 0}, "waf.max_spoken_characters is 0"),
    ],
)
def test_a_firewall_that_cannot_be_is_refused(change: dict[str, Any], fault: str) -> None:
    waf = WebApplicationFirewall(**{"image": IMAGE, **change})
    with pytest.raises(ArgumentsError, match=fault):
        PublicGatewayArgs(hosts=HOSTS, issuers=ISSUERS, waf=waf)


@pytest.mark.parametrize(
    "image", [IMAGE, "localhost/voicemesh/waf:1", f"registry.example.com/waf@sha256:{'0' * 64}"]
)
def test_images_with_tag_or_digest_are_taken(image: str) -> None:
    PublicGatewayArgs(hosts=HOSTS, issuers=ISSUERS, waf=WebApplicationFirewall(image))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"max_body_kib": 901}, r"wafs\[0\].max_body_kib is 901; allowed: at most 900"),
        ({"max_body_kib": 0}, r"wafs\[0\].max_body_kib is 0"),
        ({"timeout_milliseconds": 0}, r"wafs\[0\].timeout_milliseconds is 0"),
        ({"namespace": "A"}, r"wafs\[0\].namespace is 'A'"),
    ],
)
def test_a_way_to_ask_that_cannot_be_is_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ArgumentsError, match=fault):
        IstioMeshArgs(wafs=[WafProvider(**change)])


def test_one_gateway_has_one_firewall() -> None:
    with pytest.raises(ArgumentsError, match="each namespace once"):
        IstioMeshArgs(wafs=[WafProvider(), WafProvider()])


def test_the_halves_of_the_good_requests_have_no_text_in_common() -> None:
    assert not set(corpus.texts("tuning")) & set(corpus.texts("held_out"))


def test_novels_are_as_long_as_they_say_and_always_the_same() -> None:
    written = corpus.texts("tuning")
    assert len(corpus.novel(written, 9_000)) == 9_000
    assert corpus.novel(written, 9_000) == corpus.novel(written, 9_000)


@pytest.mark.parametrize("part", ["tuning", "held_out"])
def test_every_request_of_the_corpora_has_a_tag_of_its_own(part: corpus.Part) -> None:
    tags = [request.tag for request in corpus.benign(part)]
    assert len(set(tags)) == len(tags)


def test_bodies_of_the_corpora_are_json_below_the_bound() -> None:
    for request in (*corpus.benign("tuning"), *corpus.attacks()):
        if request.body:
            json.loads(request.body)
        assert len(request.body.encode()) < WafProvider().max_body_kib << 10
