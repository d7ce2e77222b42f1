"""Who calls: read from headers that proxies write, and never from those that callers write."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.datastructures import Headers

from inference_image.tests.conftest import StartServer
from inference_image.tests.scripted import eventually
from speech_server.errors import PermissionDeniedError
from speech_server.identity import (
    Caller,
    MalformedHeaderError,
    Way,
    direct_peer,
    identify,
    last_element,
    pairs,
    scopes,
)
from speech_server.settings import Settings

GATEWAY = "cluster.local/ns/istio-ingress/sa/public-gateway"
STUDIO = "cluster.local/ns/studio/sa/editor"
SPEECH = "cluster.local/ns/tts/sa/speech"
HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"


def element(peer: str, *, by: str = SPEECH) -> str:
    """As a sidecar of Istio appends it."""
    return f'By=spiffe://{by};Hash={HASH};Subject="";URI=spiffe://{peer}'


@dataclass(frozen=True)
class Case:
    """Headers, and the caller that they show; None where nobody vouches for one."""

    name: str
    headers: list[tuple[str, str]]
    caller: Caller | None
    gateway_principal: str | None = GATEWAY

    def __str__(self) -> str:
        return self.name


XFCC = "x-forwarded-client-cert"
CLAIMS = [
    ("x-tenant", "acme"),
    ("x-user-tier", "vip"),
    ("x-scope", "tts.basic"),
    ("x-subject", "app"),
]
BY_GATEWAY = Caller(Way.GATEWAY, "acme", "vip", "app", frozenset({"tts.basic"}))
IN_MESH = Caller(Way.MESH, tenant="studio", subject=STUDIO)

CASES = [
    Case("by the gateway", [(XFCC, element(GATEWAY)), *CLAIMS], BY_GATEWAY),
    Case("without a token", [(XFCC, element(GATEWAY))], Caller(Way.GATEWAY)),
    Case(
        "an empty header is none", [(XFCC, element(GATEWAY)), ("x-tenant", "")], Caller(Way.GATEWAY)
    ),
    Case("in the mesh", [(XFCC, element(STUDIO))], IN_MESH),
    Case("in the mesh, with forged headers", [(XFCC, element(STUDIO)), *CLAIMS], IN_MESH),
    Case(
        "in the mesh, behind a forged element",
        [(XFCC, f"{element(GATEWAY)},{element(STUDIO)}"), *CLAIMS],
        IN_MESH,
    ),
    Case(
        "in the mesh, behind a forged line",
        [(XFCC, element(GATEWAY)), (XFCC, element(STUDIO)), *CLAIMS],
        IN_MESH,
    ),
    Case(
        "in the mesh, behind a quote that is never closed",
        [(XFCC, f'URI=spiffe://{GATEWAY};Subject=",{element(STUDIO)}'), *CLAIMS],
        IN_MESH,
    ),
    Case(
        "in the mesh, behind an escaped quote",
        [(XFCC, f'URI=spiffe://{GATEWAY};Subject="\\",{element(STUDIO)}'), *CLAIMS],
        IN_MESH,
    ),
    Case(
        "by the gateway, behind what its own caller wrote",
        [(XFCC, f"{element(STUDIO)},{element(GATEWAY)}"), *CLAIMS],
        BY_GATEWAY,
    ),
    Case(
        "a gateway of the same name elsewhere",
        [(XFCC, element("cluster.local/ns/studio/sa/public-gateway")), *CLAIMS],
        Caller(Way.MESH, tenant="studio", subject="cluster.local/ns/studio/sa/public-gateway"),
    ),
    Case("not through the mesh", CLAIMS, None),
    Case("an empty certificate header", [(XFCC, ""), *CLAIMS], None),
    Case("no identity", [(XFCC, f'Hash={HASH};Subject="CN=a,O=b"'), *CLAIMS], None),
    Case(
        "two identities",
        [(XFCC, f"{element(GATEWAY)};URI=spiffe://{STUDIO}"), *CLAIMS],
        None,
    ),
    Case(
        "the same identity twice",
        [(XFCC, f"{element(GATEWAY)};URI=spiffe://{GATEWAY}"), *CLAIMS],
        BY_GATEWAY,
    ),
    Case("an identity that is not of SPIFFE", [(XFCC, f"URI=https://{GATEWAY}"), *CLAIMS], None),
    Case("an identity without namespace", [(XFCC, "URI=spiffe://example.org/app")], None),
    Case("a malformed element", [(XFCC, f"{element(GATEWAY)};"), *CLAIMS], None),
    Case("two tenants", [(XFCC, element(GATEWAY)), *CLAIMS, ("x-tenant", "evil")], None),
    Case("two scopes", [(XFCC, element(GATEWAY)), *CLAIMS, ("x-scope", "tts.premium")], None),
    Case(
        "a tenant that leads out of its folder",
        [(XFCC, element(GATEWAY)), ("x-tenant", "../evil")],
        None,
    ),
    Case("no mesh and no gateway", CLAIMS, Caller(Way.LOCAL), gateway_principal=None),
    Case("a mesh without gateway", [(XFCC, element(STUDIO))], IN_MESH, gateway_principal=None),
    Case(
        "somebody else's gateway",
        [(XFCC, element(GATEWAY)), *CLAIMS],
        Caller(Way.MESH, tenant="istio-ingress", subject=GATEWAY),
        gateway_principal=None,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_headers_show_who_calls(case: Case) -> None:
    raw = [(name.encode(), value.encode()) for name, value in case.headers]
    headers = Headers(raw=raw)
    if case.caller is not None:
        assert identify(headers, case.gateway_principal) == case.caller
        return
    with pytest.raises(PermissionDeniedError) as caught:
        identify(headers, case.gateway_principal)
    assert caught.value.code == "unidentified_caller"


@given(st.text())
def test_nothing_before_the_last_element_changes_it(forged: str) -> None:
    own = element(STUDIO)
    assert last_element(f"{forged},{own}") == own
    assert direct_peer(f"{forged},{own}") == STUDIO


_VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(
    st.lists(
        st.tuples(st.sampled_from(["By", "Hash", "Subject", "URI", "DNS"]), _VALUES), min_size=1
    ),
    st.text(),
)
def test_an_element_is_read_as_it_was_written(written: list[tuple[str, str]], forged: str) -> None:
    own = ";".join(f"{key}={_quoted(value)}" for key, value in written)
    assert pairs(own) == written
    assert last_element(f"{forged},{own}") == own


@given(st.text())
def test_any_element_is_either_read_or_refused(text: str) -> None:
    try:
        found = pairs(text)
    except MalformedHeaderError:
        return
    assert all(key.isalpha() for key, _ in found)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("tts.basic", {"tts.basic"}),
        ("tts.basic tts.premium", {"tts.basic", "tts.premium"}),
        ("  tts.basic  ", {"tts.basic"}),
        ('["tts.basic","tts.premium"]', {"tts.basic", "tts.premium"}),
        ('["tts.basic tts.premium"]', {"tts.basic tts.premium"}),
        ("", set()),
        ("[]", set()),
        ('["tts.basic"', set()),
        ('["tts.basic", 7]', set()),
        ("[" * 100_000, set()),
        ('{"tts.premium": 1}', {'{"tts.premium":', "1}"}),
    ],
)
def test_scopes_are_words_or_a_list(header: str, expected: set[str]) -> None:
    assert scopes(header) == expected


@dataclass(frozen=True)
class Speech:
    """A request for speech, with its status and the code of a refusal."""

    voice: str | None
    scope: str | None
    status: int
    code: str | None = None
    peer: str = GATEWAY
    further: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.voice}-{self.scope}-{self.peer.rpartition('/')[2]}"


SPEECHES = [
    Speech("ann", "tts.basic", 200),
    Speech("ann", "tts.premium", 200),
    Speech("ann", '["tts.basic"]', 200),
    Speech(None, "tts.basic", 200),
    Speech("ann", None, 403, "insufficient_permissions"),
    Speech(None, None, 403, "insufficient_permissions"),
    Speech("ann", "tts.batch", 403, "insufficient_permissions"),
    Speech("clone", "tts.basic", 403, "insufficient_permissions"),
    Speech("clone", '["tts.basic","tts.batch"]', 403, "insufficient_permissions"),
    # There are no reference voices yet: a token that may use them learns so.
    Speech("clone", "tts.basic tts.premium", 400, "unknown_voice"),
    Speech("clone", '["tts.premium"]', 400, "unknown_voice"),
    Speech("ann", None, 200, peer=STUDIO),
    Speech("clone", None, 400, "unknown_voice", peer=STUDIO),
]


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/tts"])
@pytest.mark.parametrize("case", SPEECHES, ids=str)
def test_a_voice_takes_the_scope_for_its_kind(start: StartServer, case: Speech, path: str) -> None:
    server = start(gateway_principal=GATEWAY)
    server.server.service.engine.play_all()  # type: ignore[attr-defined]
    headers = {XFCC: element(case.peer), "x-tenant": "acme"}
    headers |= {"x-scope": case.scope} if case.scope is not None else {}
    body: dict[str, Any] = {"input": "Hello."} | ({"voice": case.voice} if case.voice else {})
    with server.client() as client:
        answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == case.status
    if case.code is not None:
        assert answer.json()["error"]["code"] == case.code


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/v1/audio/speech", 403),
        ("/", 403),
        ("/nowhere", 403),
    ],
)
def test_who_comes_past_the_mesh_learns_health_only(
    start: StartServer, path: str, status: int
) -> None:
    with start(gateway_principal=GATEWAY).client() as client:
        refused = client.get(path)
        meshed = client.get(path, headers={XFCC: element(STUDIO)})
    assert refused.status_code == status
    assert meshed.status_code != 403
    if status == 403:
        assert refused.json()["error"]["code"] == "unidentified_caller"


def test_a_stranger_is_refused_before_its_body_is_read(start: StartServer) -> None:
    server = start(gateway_principal=GATEWAY, max_characters=1)
    large = b"x" * 2**20
    with server.client() as client:
        stranger = client.post("/v1/audio/speech", content=large)
        known = client.post("/v1/audio/speech", content=large, headers={XFCC: element(STUDIO)})
    assert (stranger.status_code, known.status_code) == (403, 413)


def test_the_log_names_the_tenant_that_proxies_vouch_for(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = start(gateway_principal=GATEWAY)
    with server.client() as client:
        _refused(client, {XFCC: element(GATEWAY), "x-tenant": "acme", "x-scope": "tts.basic"})
        _refused(client, {XFCC: element(STUDIO), "x-tenant": "acme"})
        _refused(client, {"x-tenant": "acme"})

    def lines() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        return [line for line in said if "outcome=" in line]

    # A line is written once its answer is sent, which its client may know before.
    eventually(lambda: len(lines()) >= 3, "three requests are logged")
    assert [line.split()[2:4] for line in lines()] == [
        ["tenant=acme", "via=gateway"],
        ["tenant=studio", "via=mesh"],
        ["tenant=-", "via=-"],
    ]


def _refused(client: httpx.Client, headers: dict[str, str]) -> None:
    """A request that is refused, and so leaves a line in the log at once."""
    answer = client.post("/v1/audio/speech", json={"input": ""}, headers=headers)
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize(
    ("principal", "accepted"),
    [(GATEWAY, True), (f"spiffe://{GATEWAY}", False), ("", False), ("public-gateway", False)],
)
def test_the_gateways_principal_is_checked_at_the_start(principal: str, accepted: bool) -> None:
    if accepted:
        assert Settings(gateway_principal=principal).gateway_principal == principal
        return
    with pytest.raises(ValidationError, match="gateway_principal"):
        Settings(gateway_principal=principal)
