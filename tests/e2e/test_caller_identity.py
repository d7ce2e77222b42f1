"""Who a voice takes its callers for: what proxies verified, and nothing that a caller writes.

The checks ask the speech server's own reader of headers about the headers that reached a scripted
server, and the log of the real server about requests that it answered.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from infra.local.commands import run_command
from infra.local.paths import CHECKOUT
from infra.local.speak import SAMPLE_RATE_HERTZ
from speech_server.errors import PermissionDeniedError
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
    caller_name,
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


def taken_for(
    lab: Lab, place: Place, headers: Mapping[str, str], token: str | None = None
) -> Caller:
    """Whom the server would take a caller for that sends these headers."""
    return next(iter(all_taken_for(lab, place, {"": headers}, token).values()))


def all_taken_for(
    lab: Lab, place: Place, written: Mapping[str, Mapping[str, str]], token: str | None = None
) -> dict[str, Caller]:
    """As `taken_for`, for each of several requests."""
    seen = _seen(lab, place, written, token)
    return {name: _identified(headers) for name, headers in seen.items()}


def _identified(headers: Mapping[str, str]) -> Caller:
    """As the server does it; where that refuses to say, somebody whom no check expects."""
    try:
        return identify(Headers(headers), LAB_GATEWAY)
    except PermissionDeniedError as error:
        return Caller(Way.LOCAL, subject=str(error))


def _seen(
    lab: Lab, place: Place, written: Mapping[str, Mapping[str, str]], token: str | None
) -> dict[str, Mapping[str, str]]:
    """The headers that reach the server, for each of several requests."""
    probes = {name: new_probe("identity") for name in written}
    answers = place.load(
        *(
            lab.asking(token=token, probe=probes[name], headers=headers)
            for name, headers in written.items()
        )
    )
    assert [answer.status for answer in answers] == [200] * len(written), answers
    (upstream,) = lab.upstreams(VOICE).values()
    return {name: upstream.seen(probe)[0]["headers"] for name, probe in probes.items()}


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
    "no tenant or tier": (
        {"scope": BASIC_SCOPE, "tenant": None, "tier": None, "sub": "app"},
        Caller(Way.GATEWAY, subject="app", scopes=frozenset({BASIC_SCOPE})),
    ),
}


def check_callers_from_outside(lab: Lab) -> None:
    place = lab.public(VOICE)
    for said, (claims, caller) in TOKENS.items():
        found = all_taken_for(lab, place, forged(LAB_GATEWAY), lab.token(**claims))
        for name, taken in found.items():
            assert taken == caller, f"token with {said}, forging {name}"


def check_callers_in_the_mesh(lab: Lab, place: Place, like: str = "") -> None:
    written = {name: headers for name, headers in forged(LAB_GATEWAY).items() if like in name}
    for name, taken in all_taken_for(lab, place, written).items():
        assert taken == Caller(Way.MESH, tenant=TENANT, subject=IN_MESH), f"forging {name}"


def test_callers_from_outside_are_who_their_tokens_say(lab: Lab) -> None:
    check_callers_from_outside(lab)


def test_callers_from_outside_say_who_they_are_where_routes_do_not_remove_headers(lab: Lab) -> None:
    public = lab.read("VirtualService", TENANT, f"{VOICE}-public")["spec"]
    setting = [
        {**route, "headers": {"request": {"set": route["headers"]["request"]["set"]}}}
        for route in public["http"]
    ]
    without = lab.token(tenant=None)
    with lab.patched("VirtualService", TENANT, f"{VOICE}-public", {"http": setting}):
        eventually(
            lambda: taken_for(lab, lab.public(VOICE), {TENANT_HEADER: "evil"}, without).tenant,
            what="the route removes no headers",
        )
        with pytest.raises(AssertionError, match="token with no tenant or tier, forging"):
            check_callers_from_outside(lab)
    eventually(
        lambda: not taken_for(lab, lab.public(VOICE), {TENANT_HEADER: "evil"}, without).tenant,
        what="the route removes headers again",
    )


@pytest.fixture(scope="module")
def forger(lab: Lab) -> Iterator[Place]:
    """A workload of the mesh whose own proxy passes on what it writes of certificates.

    As it is, each sidecar removes that from what its pod sends. Who has a certificate of the mesh
    need not use that sidecar.
    """
    place = lab.inside(VOICE, TENANT, ACCOUNT)
    written = {CLIENT_CERT_HEADER: "Hash=written"}
    spec = _passing_on(caller_name(ACCOUNT, TENANT), "SIDECAR_OUTBOUND")
    with lab.object("EnvoyFilter", TENANT, "forging", spec):
        eventually(
            lambda: (
                "Hash=written" in _seen(lab, place, {"": written}, None)[""][CLIENT_CERT_HEADER]
            ),
            what="the caller's proxy passes on what it wrote",
        )
        yield place


def test_callers_in_the_mesh_are_who_their_certificates_say(lab: Lab, forger: Place) -> None:
    check_callers_in_the_mesh(lab, forger)


def test_callers_in_the_mesh_say_who_they_are_where_proxies_believe_them(
    lab: Lab, forger: Place
) -> None:
    element = forged(LAB_GATEWAY)["an element"]
    with lab.object("EnvoyFilter", TENANT, "believing", _passing_on(VOICE, "SIDECAR_INBOUND")):
        eventually(
            lambda: taken_for(lab, forger, element).way is Way.GATEWAY,
            what="the voice's proxy believes its callers",
        )
        with pytest.raises(AssertionError, match=r"forging .*element"):
            check_callers_in_the_mesh(lab, forger, like="element")
    eventually(
        lambda: taken_for(lab, forger, element).way is Way.MESH,
        what="the voice's proxy believes nobody again",
    )


def _passing_on(app: str, context: str) -> dict[str, Any]:
    """Has proxies pass on the word of callers, and add none of their own."""
    manager = "envoy.filters.network.http_connection_manager"
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    return {
        "workloadSelector": {"labels": {"app": app}},
        "configPatches": [
            {
                "applyTo": "NETWORK_FILTER",
                "match": {
                    "context": context,
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
    namespace = main_stack.NAMESPACE
    name = caller_name(ACCOUNT, namespace)
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
            eventually(lambda: _is_served(place), what="the caller is let in")
            yield place
    finally:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=1)
        core.delete_namespaced_service_account(ACCOUNT, namespace)


def _is_served(place: Place) -> bool:
    answer = place.request(_speaking({}))
    assert answer.status == 200, f"{answer.status} {answer.outcome}: {answer.text[:300]}"
    return True


def test_the_real_server_tells_who_comes_past_the_mesh_its_health_only(lab: Lab) -> None:
    network = Process(lab.environment.speech_pods()[0].metadata.name, "python").network

    def asked(method: str, path: str, headers: Mapping[str, str]) -> str:
        program = (
            "import json, sys, httpx\n"
            "method, url, headers, body = sys.argv[1:]\n"
            "print(httpx.request(method, url, headers=json.loads(headers),\n"
            "                    json=json.loads(body), trust_env=False).status_code)\n"
        )
        url = f"http://127.0.0.1:{HTTP_PORT}{path}"
        request = [method, url, json.dumps(headers), json.dumps({"input": "Hello."})]
        argv = ["nsenter", f"--net={network}", "--", sys.executable, "-c", program, *request]
        return run_command(argv, "asking a pod").strip()

    assert asked("GET", HEALTH_PATH, {}) == "200"
    for name, headers in forged(MAIN_GATEWAY).items():
        # Its own proxy would have written the last element; here it is the caller's word.
        if CLIENT_CERT_HEADER not in headers:
            assert asked("POST", SPEECH_PATH, headers) == "403", name


def test_the_request_that_the_readme_shows_speaks(lab: Lab, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    page = (CHECKOUT / "README.md").read_text()
    (command,) = re.findall(r"^try it: (curl .*) --output hello\.wav$", page, re.MULTILINE)
    heard = tmp_path / "hello.wav"
    command = f"{command} --fail --silent --show-error --output {heard}"
    subprocess.run(["bash", "-c", command], cwd=CHECKOUT, check=True)
    with wave.open(str(heard)) as audio:
        assert audio.getframerate() == SAMPLE_RATE_HERTZ
    assert len(heard.read_bytes()) > SAMPLE_RATE_HERTZ
