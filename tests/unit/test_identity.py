from __future__ import annotations

from typing import Any

import pytest

from voicemesh import TokenIssuer, VoiceAccess, contract
from voicemesh.gateway.authentication import token_required
from voicemesh.identity import (
    forwarded_headers,
    keys_ahead,
    request_authentication,
    service_entry,
    tls_origination,
)
from voicemesh.issuers import KeySource, external_sources
from voicemesh.service.authorization import authorization_policy

PODS = {"app": "speech"}
GATEWAY = "cluster.local/ns/istio-ingress/sa/public"
EDITOR = "cluster.local/ns/studio/sa/editor"


def issuer(jwks_uri: str, name: str = "https://login.example.com/") -> TokenIssuer:
    return TokenIssuer(name, jwks_uri, ["voicemesh"])


@pytest.mark.parametrize(
    ("jwks_uri", "cluster", "mesh_uri"),
    [
        (
            "https://login.example.com/keys",
            "outbound|80||login.example.com",
            "http://login.example.com:80/keys",
        ),
        (
            "https://login.example.com:8443/keys?v=2",
            "outbound|80||login.example.com",
            "http://login.example.com:80/keys?v=2",
        ),
        (
            "http://login.example.com/keys",
            "outbound|80||login.example.com",
            "http://login.example.com:80/keys",
        ),
        (
            "http://10.1.2.3:4567/keys",
            "outbound|4567||10-1-2-3.issuers.internal",
            "http://10-1-2-3.issuers.internal:4567/keys",
        ),
        (
            "http://keycloak.login.svc.cluster.local:8080/keys",
            "outbound|8080||keycloak.login.svc.cluster.local",
            "http://keycloak.login.svc.cluster.local:8080/keys",
        ),
    ],
)
def test_proxies_ask_the_issuer_by_the_name_that_the_mesh_has_for_it(
    jwks_uri: str, cluster: str, mesh_uri: str
) -> None:
    login = issuer(jwks_uri)
    (rule,) = rules([login])
    assert rule["jwksUri"] == mesh_uri
    (provider,) = providers([login])
    assert provider["remote_jwks"]["http_uri"]["cluster"] == cluster
    # What the issuer sees is its own name.
    assert provider["remote_jwks"]["http_uri"]["uri"] == jwks_uri
    assert "async_fetch" in provider["remote_jwks"]


def rules(issuers: list[TokenIssuer]) -> list[Any]:
    return [*request_authentication(PODS, issuers, forward=True)["jwtRules"]]


def providers(issuers: list[TokenIssuer]) -> list[dict[str, Any]]:
    patch = keys_ahead(issuers, forward=True, on_gateway=True)["patch"]
    return list(patch["value"]["typed_config"]["providers"].values())


def test_issuers_are_numbered_as_istiod_numbers_them() -> None:
    by_name = [issuer(f"https://{host}/keys", f"https://{host}/") for host in ("b.com", "a.com")]
    patch = keys_ahead(by_name, forward=False, on_gateway=False)["patch"]
    numbered = patch["value"]["typed_config"]["providers"]
    assert {name: provider["issuer"] for name, provider in numbered.items()} == {
        "origins-0": "https://a.com/",
        "origins-1": "https://b.com/",
    }


def test_both_say_the_same_of_an_issuer() -> None:
    login = issuer("https://login.example.com/keys")
    (rule,) = rules([login])
    (provider,) = providers([login])
    assert (rule["issuer"], rule["audiences"], rule["forwardOriginalToken"]) == (
        provider["issuer"],
        provider["audiences"],
        provider["forward"],
    )


def test_servers_of_keys_are_known_once_each_and_those_of_the_mesh_already() -> None:
    realms = [
        issuer("https://login.example.com/a/keys", "a"),
        issuer("https://login.example.com/b/keys", "b"),
        issuer("http://keycloak.login.svc.cluster.local:8080/keys", "c"),
    ]
    (source,) = external_sources(realms)
    assert source == KeySource("login.example.com", 443, tls=True)


def test_proxies_speak_tls_for_whoever_fetches_keys_and_leave_that_of_others_alone() -> None:
    source = KeySource("login.example.com", 443, tls=True)
    entry: Any = service_entry(source)
    keys, own = entry["ports"]
    assert (keys["number"], keys.get("targetPort"), keys["protocol"]) == (80, 443, "HTTP")
    assert (own["number"], own["protocol"]) == (443, "TLS")
    rule: Any = tls_origination(source)
    (setting,) = rule["trafficPolicy"]["portLevelSettings"]
    assert setting["port"] == {"number": 80}
    assert setting["tls"] == {
        "mode": "SIMPLE",
        "caCertificates": "system",
        "sni": "login.example.com",
        "subjectAltNames": ["login.example.com"],
    }


def test_an_address_has_a_name_in_the_mesh() -> None:
    source = KeySource("10.1.2.3", 4567, tls=False)
    entry: Any = service_entry(source)
    assert entry["hosts"] == ["10-1-2-3.issuers.internal"]
    assert (entry["resolution"], entry["endpoints"]) == ("STATIC", [{"address": "10.1.2.3"}])
    secure: Any = tls_origination(KeySource("10.1.2.3", 443, tls=True))
    (setting,) = secure["trafficPolicy"]["portLevelSettings"]
    assert "sni" not in setting["tls"]


def test_headers_of_identity_are_the_gateways_word() -> None:
    request: Any = forwarded_headers().get("request")
    headers = {
        contract.TENANT_HEADER,
        contract.TIER_HEADER,
        contract.SCOPE_HEADER,
        contract.SUBJECT_HEADER,
    }
    assert {*request["remove"]} == headers == {*request["set"]}


def test_the_gateway_asks_a_token_of_all_but_the_page_health_and_preflights() -> None:
    policy: Any = token_required(PODS)
    plain, options = policy["rules"]
    for rule in (plain, options):
        assert rule["from"] == [{"source": {"notRequestPrincipals": ["*"]}}]
        (to,) = rule["to"]
        assert {*to["operation"]["notPaths"]} == {contract.PAGE_PATH, contract.HEALTH_PATH}
    assert plain["to"][0]["operation"]["notMethods"] == ["OPTIONS"]
    assert options["to"][0]["operation"]["methods"] == ["OPTIONS"]
    assert options["when"] == [
        {"key": "request.headers[access-control-request-method]", "notValues": ["*"]}
    ]


def test_a_voice_without_gateway_and_callers_lets_nobody_in() -> None:
    policy = authorization_policy(PODS, VoiceAccess(), None)
    assert policy == {"selector": {"matchLabels": PODS}, "action": "ALLOW"}


def test_callers_in_the_mesh_need_no_token() -> None:
    policy: Any = authorization_policy(PODS, VoiceAccess(callers=[EDITOR]), None)
    assert policy["rules"] == [{"from": [{"source": {"principals": [EDITOR]}}]}]


def test_the_gateway_brings_what_scopes_and_tenants_allow() -> None:
    access = VoiceAccess(tenants=["acme"], admin_scopes=[])
    policy: Any = authorization_policy(PODS, access, GATEWAY)
    granted = policy["rules"]
    assert all(rule["from"] == [{"source": {"principals": [GATEWAY]}}] for rule in granted)
    scopes = {
        path: rule.get("when", [{}])[0].get("values")
        for rule in granted
        for to in rule["to"]
        for path in to["operation"]["paths"]
    }
    assert scopes == {
        "/": None,
        "/healthz": None,
        "/v1/audio/speech": ["tts.basic", "tts.premium"],
        "/v1/audio/speech/stream": ["tts.basic", "tts.premium"],
        "/tts": ["tts.basic", "tts.premium"],
        "/v1/audio/voices": ["tts.premium"],
        "/v1/audio/voices/*": ["tts.premium"],
        "/batch": ["tts.batch"],
        "/batch/*": ["tts.batch"],
    }
    tenants = [rule["when"][1] for rule in granted if "when" in rule]
    assert tenants == [{"key": "request.auth.claims[tenant]", "values": ["acme"]}] * 3
