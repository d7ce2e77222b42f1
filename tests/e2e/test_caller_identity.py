"""Who a voice takes its callers for: what proxies verified, and nothing that a caller writes.

The checks ask the speech server's own reader of headers about the headers that reached a scripted
server, and the log of the real server about requests that it answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.datastructures import Headers

from infra.local.commands import run_command
from speech_server.identity import Caller, Way, identify
from tests.e2e import environment as main_stack
from tests.e2e.environment import Environment, eventually
from tests.e2e.lab import (
    GATEWAY,
    GATEWAY_NAMESPACE,
    TENANT,
    Lab,
    Process,
    Proxy,
    caller_pod,
    new_probe,
)
from tests.e2e.lab import Caller as Place
from tests.e2e.load import Answer, Request, Target
from voicemesh.contract import (
    BASIC_SCOPE,
    CLIENT_CERT_HEADER,
    HEALTH_PATH,
    HTTP_PORT,
    PREMIUM_SCOPE,
    REQUEST_ID_HEADER,
    SCOPE_HEADER,
    SPEECH_PATH,
    SUBJECT_HEADER,
    TENANT_HEADER,
    TIER_HEADER,
)
from voicemesh.service.workload import SERVER_CONTAINER

VOICE = "named"
ACCOUNT = "caller"
IN_MESH = f"cluster.local/ns/{TENANT}/sa/{ACCOUNT}"
LAB_GATEWAY = f"cluster.local/ns/{GATEWAY_NAMESPACE}/sa/{GATEWAY}"
MAIN_GATEWAY = "cluster.local/ns/istio-ingress/sa/public-gateway"


def forged(gateway: str) -> dict[str, Mapping[str, str]]:
    """What a caller may write to be taken for another one, whom this gateway brought."""
    claims = {
        TENANT_HEADER: "evil",
        TIER_HEADER: "vip",
        SCOPE_HEADER: PREMIUM_SCOPE,
        SUBJECT_HEADER: "evil",
    }
    element = f'By=spiffe://x;Hash=0;Subject="";URI=spiffe://{gateway}'
    return {
        "nothing": {},
        "claims": claims,
        "claims in capitals": {name.upper(): value for name, value in claims.items()},
        "an element": {**claims, CLIENT_CERT_HEADER: element},
        "several elements": {**claims, CLIENT_CERT_HEADER: f"{element},{element}"},
        "an open quote": {**claims, CLIENT_CERT_HEADER: f'{element};Subject="'},
        "an escaped quote": {**claims, CLIENT_CERT_HEADER: f'{element};Subject="\\'},
        "half an element": {**claims, CLIENT_CERT_HEADER: f"{element},By=spiffe://x;URI="},
    }


def taken_for(lab: Lab, place: Place, headers: Mapping[str, str], token: str | None) -> Caller:
    """Whom the server would take a caller for that sends these headers."""
    probe = new_probe("identity")
    answer = place.request(lab.asking(token=token, probe=probe, headers=headers))
    assert answer.status == 200, answer
    (seen,) = [
        request for upstream in lab.upstreams(VOICE).values() for request in upstream.seen(probe)
    ]
    return identify(Headers(seen["headers"]), LAB_GATEWAY)


TOKENS: dict[str, tuple[dict[str, Any], Caller]] = {
    "basic": (
        {"scope": BASIC_SCOPE, "sub": "app"},
        Caller(Way.GATEWAY, TENANT, "standard", "app", frozenset({BASIC_SCOPE})),
    ),
    "scopes as a list": (
        {"scope": [BASIC_SCOPE, PREMIUM_SCOPE], "sub": "app"},
        Caller(Way.GATEWAY, TENANT, "standard", "app", frozenset({BASIC_SCOPE, PREMIUM_SCOPE})),
    ),
    "scopes as a text": (
        {"scope": f"{BASIC_SCOPE} {PREMIUM_SCOPE}", "sub": "app"},
        Caller(Way.GATEWAY, TENANT, "standard", "app", frozenset({BASIC_SCOPE, PREMIUM_SCOPE})),
    ),
    "no tenant, tier or subject": (
        {"scope": BASIC_SCOPE, "tenant": None, "tier": None, "sub": None},
        Caller(Way.GATEWAY, scopes=frozenset({BASIC_SCOPE})),
    ),
}


def check_callers_from_outside(lab: Lab) -> None:
    place = lab.public(VOICE)
    for said, (claims, caller) in TOKENS.items():
        token = lab.token(**claims)
        for name, headers in forged(LAB_GATEWAY).items():
            taken = taken_for(lab, place, headers, token)
            assert taken == caller, f"token with {said}, forging {name}"


def check_callers_in_the_mesh(lab: Lab) -> None:
    place = lab.inside(VOICE, TENANT, ACCOUNT)
    for name, headers in forged(LAB_GATEWAY).items():
        taken = taken_for(lab, place, headers, None)
        assert taken == Caller(Way.MESH, tenant=TENANT, subject=IN_MESH), f"forging {name}"


def test_callers_from_outside_are_who_their_tokens_say(lab: Lab) -> None:
    check_callers_from_outside(lab)


def test_callers_from_outside_are_who_they_want_where_routes_leave_headers_alone(lab: Lab) -> None:
    public = lab.read("VirtualService", TENANT, f"{VOICE}-public")["spec"]
    naive = [{key: it for key, it in route.items() if key != "headers"} for route in public["http"]]
    with lab.patched("VirtualService", TENANT, f"{VOICE}-public", {"http": naive}):
        token = lab.token()
        eventually(
            lambda: (
                taken_for(lab, lab.public(VOICE), {TENANT_HEADER: "evil"}, token).tenant == "evil"
            ),
            what="the route leaves headers alone",
        )
        with pytest.raises(AssertionError, match="forging claims"):
            check_callers_from_outside(lab)
    eventually(lambda: _passes(check_callers_from_outside, lab), what="the route is as before")


def test_callers_in_the_mesh_are_who_their_certificates_say(lab: Lab) -> None:
    check_callers_in_the_mesh(lab)


def test_callers_in_the_mesh_are_who_they_want_where_proxies_believe_them(lab: Lab) -> None:
    place = lab.inside(VOICE, TENANT, ACCOUNT)
    element = forged(LAB_GATEWAY)["an element"]
    with lab.object("EnvoyFilter", TENANT, "believing", _believing()):
        eventually(
            lambda: taken_for(lab, place, element, None).way is Way.GATEWAY,
            what="the proxy believes its callers",
        )
        with pytest.raises(AssertionError, match="forging an element"):
            check_callers_in_the_mesh_that_write_elements(lab)
    eventually(lambda: _passes(check_callers_in_the_mesh, lab), what="the proxy is as before")


def check_callers_in_the_mesh_that_write_elements(lab: Lab) -> None:
    """The part of `check_callers_in_the_mesh` in which callers write elements themselves."""
    place = lab.inside(VOICE, TENANT, ACCOUNT)
    for name, headers in forged(LAB_GATEWAY).items():
        if CLIENT_CERT_HEADER in headers:
            taken = taken_for(lab, place, headers, None)
            assert taken == Caller(Way.MESH, tenant=TENANT, subject=IN_MESH), f"forging {name}"


def _believing() -> dict[str, Any]:
    """A proxy that passes its callers' word on, and adds none of its own."""
    manager = "envoy.filters.network.http_connection_manager"
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    return {
        "workloadSelector": {"labels": {"app": VOICE}},
        "configPatches": [
            {
                "applyTo": "NETWORK_FILTER",
                "match": {
                    "context": "SIDECAR_INBOUND",
                    "listener": {"filterChain": {"filter": {"name": manager}}},
                },
                "patch": {
                    "operation": "MERGE",
                    "value": {
                        "name": manager,
                        "typed_config": {
                            "@type": f"{kind}.HttpConnectionManager",
                            "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
                        },
                    },
                },
            }
        ],
    }


def _passes(check: Any, lab: Lab) -> bool:
    check(lab)
    return True


def _speaking(headers: Mapping[str, str], voice: str = "heart") -> Request:
    body = json.dumps({"input": "Hello.", "voice": voice})
    kind = {"content-type": "application/json"}
    return Request(SPEECH_PATH, headers={**kind, **headers}, body=body)


def _logged(environment: Environment, answer: Answer) -> dict[str, str]:
    """What the real server wrote of a request that it answered."""
    request_id = answer.headers[REQUEST_ID_HEADER]

    def line() -> str:
        for pod in environment.speech_pods():
            log = environment.core.read_namespaced_pod_log(
                pod.metadata.name, main_stack.NAMESPACE, container=SERVER_CONTAINER, tail_lines=200
            )
            for text in log.splitlines():
                if f"request={request_id} " in text:
                    return text
        return ""

    return dict(re.findall(r"(\w+)=(\S+)", eventually(line, 10, "the server logs the request")))


def test_the_real_server_logs_the_tenant_of_the_token(lab: Lab) -> None:
    environment = lab.environment
    door = environment.door
    for name, headers in forged(MAIN_GATEWAY).items():
        with door.client() as client:
            body = {"input": "Hello.", "voice": "heart"}
            answer = client.post(SPEECH_PATH, json=body, headers=dict(headers))
        assert answer.status_code == 200, name
        seen = Answer("", 0, headers={k.lower(): v for k, v in answer.headers.items()})
        logged = _logged(environment, seen)
        assert (logged["tenant"], logged["via"]) == (main_stack.NAMESPACE, "gateway"), name


def test_the_real_server_refuses_reference_voices_to_basic_tokens(lab: Lab) -> None:
    statuses = {}
    for caller in ("basic", "premium"):
        with lab.environment.door.client(caller=caller) as client:
            preset = client.post(SPEECH_PATH, json={"input": "Hello.", "voice": "heart"})
            cloned = client.post(SPEECH_PATH, json={"input": "Hello.", "voice": "my-clone"})
        code = cloned.json()["error"]["code"]
        statuses[caller] = (preset.status_code, cloned.status_code, code)
    assert statuses == {
        "basic": (200, 403, "insufficient_permissions"),
        # It has no reference voices yet: a token that may use them learns so.
        "premium": (200, 400, "unknown_voice"),
    }


def test_the_real_server_takes_a_caller_in_the_mesh_for_its_namespace(lab: Lab) -> None:
    with _caller_of_the_main_stack(lab) as place:
        for name, headers in forged(MAIN_GATEWAY).items():
            answer = place.request(_speaking(headers))
            assert answer.status == 200, (name, answer)
            logged = _logged(lab.environment, answer)
            assert (logged["tenant"], logged["via"]) == (main_stack.NAMESPACE, "mesh"), name


@contextmanager
def _caller_of_the_main_stack(lab: Lab) -> Iterator[Place]:
    """A workload that may call the real voice for a while."""
    namespace, name = main_stack.NAMESPACE, f"caller-{ACCOUNT}"
    principal = f"cluster.local/ns/{namespace}/sa/{ACCOUNT}"
    allow = {
        "selector": {"matchLabels": {"app": main_stack.APP}},
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": [principal]}}]}],
    }
    core = lab.core
    core.create_namespaced_service_account(namespace, {"metadata": {"name": ACCOUNT}})
    core.create_namespaced_pod(namespace, caller_pod(name, ACCOUNT))
    try:
        with lab.object("AuthorizationPolicy", namespace, name, allow):
            eventually(lambda: lab.ready_pods(namespace, app=name), 90, f"{name} is ready")
            service = core.read_namespaced_service(main_stack.APP, namespace)
            host = f"{main_stack.APP}.{namespace}.svc.cluster.local:{HTTP_PORT}"
            place = Place(Proxy(name).network, Target(service.spec.cluster_ip, HTTP_PORT, host))
            eventually(
                lambda: place.request(_speaking({})).status == 200, what="the caller is let in"
            )
            yield place
    finally:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=1)
        core.delete_namespaced_service_account(ACCOUNT, namespace)


def test_the_real_server_tells_who_comes_past_the_mesh_its_health_only(lab: Lab) -> None:
    network = Process(lab.environment.speech_pods()[0].metadata.name, "python").network

    def asked(method: str, path: str, *more: str) -> str:
        url = f"http://127.0.0.1:{HTTP_PORT}{path}"
        status = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, url]
        return run_command(["nsenter", f"--net={network}", "curl", *status, *more], "asking a pod")

    body = ["-H", "content-type: application/json", "-d", '{"input": "Hello."}']
    assert asked("GET", HEALTH_PATH) == "200"
    assert asked("POST", SPEECH_PATH, *body) == "403"
    assert asked("POST", SPEECH_PATH, "-H", f"{TENANT_HEADER}: {TENANT}", *body) == "403"
