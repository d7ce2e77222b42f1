"""Who may ask for what, held to the table of `auth_matrix` on the live mesh."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
from joserfc.jwk import RSAKey

from infra.local import tokens
from infra.local.topology import HUB_ADDRESS, ISSUER_PORT
from tests.e2e import auth_matrix
from tests.e2e.auth_matrix import ADDRESSES, REACHED, SPELLINGS, Token, expected
from tests.e2e.environment import Environment, eventually
from tests.e2e.lab import (
    GATEWAY,
    GATEWAY_NAMESPACE,
    OTHER_TENANT,
    TENANT,
    Caller,
    Lab,
    Proxy,
    asking,
)
from tests.e2e.load import Answer, Request
from tests.e2e.scripted_upstream.server import POD_HEADER
from voicemesh.contract import (
    ADMIN_SCOPE,
    HEALTH_PATH,
    METRICS_PATH,
    PAGE_PATH,
    PREMIUM_SCOPE,
    SCOPE_HEADER,
    SPEECH_PATH,
    SUBJECT_HEADER,
    TENANT_HEADER,
    TIER_HEADER,
    TTS_PATH,
    VOICES_PATH,
)

VOICE: Final = "guarded"
EXCLUSIVE: Final = "exclusive"
ORIGIN: Final = "https://studio.example.com"
STRANGER: Final = "stranger"
FAILING_ISSUER: Final = ("ServiceEntry", GATEWAY_NAMESPACE, "failing-issuer")
FAILING_HOST: Final = "failing.issuers.internal"
DEAD_PORT: Final = 4999
KEYS_AGE_SECONDS: Final = 10
OUTAGE_SECONDS: Final = 20
"""Longer than the keys may be old."""

GATEWAY_POLICY: Final = ("AuthorizationPolicy", GATEWAY_NAMESPACE, f"{GATEWAY}-token")
GATEWAY_FILTER: Final = ("EnvoyFilter", GATEWAY_NAMESPACE, f"{GATEWAY}-identity")
VOICE_POLICY: Final = ("AuthorizationPolicy", TENANT, VOICE)
VOICE_FILTER: Final = ("EnvoyFilter", TENANT, f"{VOICE}-identity")

BURST: Final = 48
BURST_CONNECTIONS: Final = 12
"""More than any check has."""

STATUSES: Final = (401, 403, 404, 503)
"""What proxies answer by themselves."""

Mutation = Callable[[dict[str, Any]], None]


def outcome(answer: Answer) -> int | str:
    """The status, where a proxy gave it; `REACHED` where the server did."""
    assert answer.outcome == "complete", answer
    if POD_HEADER in answer.headers:
        return REACHED if answer.status == REACHED else f"server {answer.status}"
    return answer.status if answer.status in STATUSES else f"proxy {answer.status}"


def signed(token: Token) -> str | None:
    """What is sent of a kind of token."""
    files = tokens.token_files()
    if not token.is_sent or token.text is not None:
        return token.text
    key = with_id_of(files.keys[0]) if token.is_forged else None
    return files.token(tenant=TENANT, key=key, **token.claims)


def with_id_of(key: RSAKey) -> RSAKey:
    """Another key that has the same id."""
    parameters: Any = {"use": "sig", "alg": tokens.ALGORITHM, "kid": key.kid}
    return RSAKey.generate_key(2048, parameters, private=True)


def check_matrix(lab: Lab) -> None:
    """Every kind of token on every kind of request, in every spelling."""
    kinds = auth_matrix.tokens(int(time.time()))
    sent = {token.name: signed(token) for token in kinds}
    cells = [
        (token, address, spelling)
        for token in kinds
        for address in ADDRESSES
        for spelling in SPELLINGS
    ]
    requests = [
        asking(
            token=sent[token.name],
            path=spelling.of(address.path),
            method=address.method,
            tag=str(number),
        )
        for number, (token, address, spelling) in enumerate(cells)
    ]
    answers = {
        int(answer.tag): answer for answer in lab.load(*requests, voice=VOICE, concurrency=8)
    }
    wrong = [
        f"{token.name}: {address.method} {spelling.of(address.path)} was answered "
        f"{outcome(answers[number])}, not {expected(token, address, spelling)}"
        for number, (token, address, spelling) in enumerate(cells)
        if outcome(answers[number]) != expected(token, address, spelling)
    ]
    assert not wrong, f"{len(wrong)} of {len(cells)}:\n" + "\n".join(wrong[:40])


def ask(place: Caller, path: str, token: str | None = None, **fields: Any) -> int | str:
    """What comes of one request."""
    return outcome(place.request(asking(token=token, path=path, **fields)))


@contextmanager
def taking_effect(
    change: AbstractContextManager[None], place: Caller, request: Request
) -> Iterator[None]:
    """While a change is in force, by which a request fares otherwise.

    Connections that there are may each take one more request by what was in force before.
    """
    many = replace(request, count=BURST)

    def fares() -> set[int | str]:
        return {outcome(answer) for answer in place.load(many, concurrency=BURST_CONNECTIONS)}

    (before,) = eventually(lambda: seen if len(seen := fares()) == 1 else set(), 60, "one outcome")
    with change:
        eventually(lambda: before not in fares(), 60, f"otherwise than {before}")
        yield
    eventually(lambda: fares() == {before}, 60, f"{before} again")


@contextmanager
def mutated(lab: Lab, kind: str, namespace: str, name: str, mutation: Mutation) -> Iterator[None]:
    """While an object's spec is otherwise."""
    spec = copy.deepcopy(lab.read(kind, namespace, name)["spec"])
    mutation(spec)
    with lab.patched(kind, namespace, name, spec):
        yield


def without_scopes(spec: dict[str, Any]) -> None:
    """No rule of a voice asks for a claim."""
    for rule in spec["rules"]:
        rule.pop("when", None)


def providers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The issuers in an EnvoyFilter."""
    configs = [patch["patch"]["value"]["typed_config"] for patch in spec["configPatches"]]
    return [each for config in configs for each in config.get("providers", {}).values()]


def without_audiences(spec: dict[str, Any]) -> None:
    """Tokens for any service count."""
    for provider in providers(spec):
        del provider["audiences"]


def test_each_token_gets_what_the_table_says(lab: Lab) -> None:
    check_matrix(lab)


@pytest.mark.parametrize(
    ("method", "path", "client", "status"),
    [
        ("DELETE", SPEECH_PATH, "basic", 405),
        ("GET", TTS_PATH, "basic", 405),
        ("GET", HEALTH_PATH, None, 200),
        ("DELETE", SPEECH_PATH, None, 401),
        ("GET", METRICS_PATH, "admin", 404),
    ],
)
def test_the_speech_server_answers_what_reaches_it(
    environment: Environment, method: str, path: str, client: str | None, status: int
) -> None:
    with environment.door.client(caller=client) as caller:
        assert caller.request(method, path).status_code == status


def test_control_without_the_gateways_policy_the_table_does_not_hold(lab: Lab) -> None:
    request = asking(path="/nothing")
    with (
        taking_effect(lab.without(*GATEWAY_POLICY), lab.public(VOICE), request),
        pytest.raises(
            AssertionError, match="no token: POST /v1/audio/speech was answered 403, not 401"
        ),
    ):
        check_matrix(lab)


def test_control_without_scopes_in_the_voices_policy_the_table_does_not_hold(lab: Lab) -> None:
    request = asking(path=VOICES_PATH, token=lab.token())
    change = mutated(lab, *VOICE_POLICY, without_scopes)
    with (
        taking_effect(change, lab.public(VOICE), request),
        pytest.raises(
            AssertionError, match=f"no scope: POST {SPEECH_PATH} was answered 200, not 403"
        ),
    ):
        check_matrix(lab)


def test_control_without_audiences_the_table_does_not_hold(lab: Lab) -> None:
    request = asking(path=SPEECH_PATH, token=lab.token(aud="another-service"))
    with ExitStack() as changes:
        changes.enter_context(mutated(lab, *GATEWAY_FILTER, without_audiences))
        changes.enter_context(
            taking_effect(
                mutated(lab, *VOICE_FILTER, without_audiences), lab.public(VOICE), request
            )
        )
        said = f"wrong audience: POST {SPEECH_PATH} was answered 200, not 401"
        with pytest.raises(AssertionError, match=said):
            check_matrix(lab)


def check_gateways_identity(lab: Lab) -> None:
    """Whoever has the gateway's identity can do what the tokens allow that it brings."""
    gateway = lab.inside(VOICE, GATEWAY_NAMESPACE, GATEWAY)
    forged = {
        TENANT_HEADER: TENANT,
        TIER_HEADER: "vip",
        SCOPE_HEADER: f'["{ADMIN_SCOPE}","{PREMIUM_SCOPE}"]',
        SUBJECT_HEADER: "evil",
    }
    assert ask(gateway, PAGE_PATH, method="GET") == REACHED
    for path in (SPEECH_PATH, VOICES_PATH, "/metrics"):
        assert ask(gateway, path) == 403, f"{path} without a token"
        assert ask(gateway, path, headers=forged) == 403, f"{path} with forged headers"
    assert ask(gateway, SPEECH_PATH, lab.token()) == REACHED
    assert ask(gateway, VOICES_PATH, lab.token()) == 403, "voices with a basic token"
    assert ask(gateway, VOICES_PATH, lab.token(scope=PREMIUM_SCOPE)) == REACHED
    assert ask(gateway, SPEECH_PATH, lab.token(aud="another-service")) == 401
    assert ask(gateway, SPEECH_PATH, lab.token(key=tokens.new_key())) == 401


def test_the_gateways_identity_does_not_stand_in_for_a_token(lab: Lab) -> None:
    check_gateways_identity(lab)


def test_control_without_scopes_the_gateways_identity_is_enough(lab: Lab) -> None:
    gateway = lab.inside(VOICE, GATEWAY_NAMESPACE, GATEWAY)
    change = mutated(lab, *VOICE_POLICY, without_scopes)
    with (
        taking_effect(change, gateway, asking(path=VOICES_PATH)),
        pytest.raises(AssertionError, match="without a token"),
    ):
        check_gateways_identity(lab)


def check_stranger(lab: Lab) -> None:
    """Accounts of the mesh that a voice does not name are refused, whatever they bring."""
    stranger = lab.inside(VOICE, TENANT, STRANGER)
    for path in (SPEECH_PATH, VOICES_PATH, PAGE_PATH, HEALTH_PATH, "/metrics", "/nothing"):
        assert ask(stranger, path) == 403, f"{path} without a token"
        assert ask(stranger, path, lab.token(scope=PREMIUM_SCOPE)) == 403, f"{path} with a token"


def test_an_account_that_the_voice_does_not_name_is_refused_in_the_mesh(lab: Lab) -> None:
    check_stranger(lab)


def test_an_account_that_the_voice_names_needs_no_token(lab: Lab) -> None:
    caller = lab.inside(VOICE)
    for path in (SPEECH_PATH, VOICES_PATH, PAGE_PATH, HEALTH_PATH):
        assert ask(caller, path) == REACHED, path


def test_control_a_stranger_that_the_policy_names_is_let_in(lab: Lab) -> None:
    def name_stranger(spec: dict[str, Any]) -> None:
        principal = f"cluster.local/ns/{TENANT}/sa/{STRANGER}"
        spec["rules"].append({"from": [{"source": {"principals": [principal]}}]})

    stranger = lab.inside(VOICE, TENANT, STRANGER)
    change = mutated(lab, *VOICE_POLICY, name_stranger)
    with (
        taking_effect(change, stranger, asking(path=SPEECH_PATH)),
        pytest.raises(AssertionError, match=f"{SPEECH_PATH} without a token"),
    ):
        check_stranger(lab)


def check_tenants(lab: Lab) -> None:
    """A voice for one tenant, through the gateway."""
    exclusive = lab.public(EXCLUSIVE)
    assert ask(exclusive, SPEECH_PATH, lab.token(OTHER_TENANT)) == REACHED
    for tenant in (TENANT, None, f"{OTHER_TENANT}x"):
        assert ask(exclusive, SPEECH_PATH, lab.token(tenant)) == 403, f"tenant {tenant}"
    forged = {TENANT_HEADER: OTHER_TENANT}
    assert ask(exclusive, SPEECH_PATH, lab.token(TENANT), headers=forged) == 403, "forged header"


def test_a_voice_may_be_for_certain_tenants_only(lab: Lab) -> None:
    check_tenants(lab)


def test_control_without_the_tenant_in_its_policy_a_voice_is_for_all(lab: Lab) -> None:
    request = asking(path=SPEECH_PATH, token=lab.token(TENANT))
    change = mutated(lab, "AuthorizationPolicy", OTHER_TENANT, EXCLUSIVE, without_scopes)
    with (
        taking_effect(change, lab.public(EXCLUSIVE), request),
        pytest.raises(AssertionError, match=f"tenant {TENANT}"),
    ):
        check_tenants(lab)


def check_refusals(lab: Lab) -> None:
    """Refusals say what is wrong: in the header of RFC 6750, and in the form of OpenAI's errors."""
    public = lab.public(VOICE)
    cases = [
        (None, SPEECH_PATH, "missing_token", 'Bearer realm="voicemesh"'),
        (
            "garbage",
            SPEECH_PATH,
            "invalid_token",
            'Bearer realm="voicemesh", error="invalid_token"',
        ),
        (
            lab.token(),
            VOICES_PATH,
            "insufficient_scope",
            'Bearer realm="voicemesh", error="insufficient_scope"',
        ),
        (lab.token(), "/nothing", "not_found", None),
    ]
    for token, path, code, challenge in cases:
        answer = public.request(asking(token=token, path=path))
        assert answer.headers.get("content-type") == "application/json", f"{code}: {answer}"
        error = answer.json["error"]
        assert (error["code"], error["param"]) == (code, None), answer
        assert error["type"] == "invalid_request_error", answer
        assert error["message"], answer
        assert answer.headers.get("www-authenticate") == challenge, answer


def test_refusals_say_what_is_wrong(lab: Lab) -> None:
    check_refusals(lab)


def test_control_without_its_filter_the_gateway_refuses_in_its_own_words(lab: Lab) -> None:
    with (
        taking_effect(lab.without(*GATEWAY_FILTER), lab.public(VOICE), asking(path=SPEECH_PATH)),
        pytest.raises(AssertionError, match="missing_token"),
    ):
        check_refusals(lab)


def check_other_origins(lab: Lab) -> None:
    """Pages of certain origins may call, with a token."""
    public = lab.public(VOICE)

    def preflight(origin: str) -> Answer:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        return public.request(asking(path=SPEECH_PATH, method="OPTIONS", headers=headers))

    allowed = preflight(ORIGIN)
    assert allowed.headers.get("access-control-allow-origin") == ORIGIN, allowed
    assert "POST" in allowed.headers["access-control-allow-methods"], allowed
    assert "authorization" in allowed.headers["access-control-allow-headers"], allowed
    for origin in ("https://evil.example.com", f"{ORIGIN}.evil.example.com", "null"):
        assert "access-control-allow-origin" not in preflight(origin).headers, origin
    spoken = public.request(lab.asking(headers={"origin": ORIGIN}))
    assert outcome(spoken) == REACHED
    assert spoken.headers.get("access-control-allow-origin") == ORIGIN, spoken
    assert ask(public, SPEECH_PATH, headers={"origin": ORIGIN}) == 401
    assert ask(public, SPEECH_PATH, method="OPTIONS", headers={"origin": ORIGIN}) == 401


def test_pages_of_certain_origins_may_call(lab: Lab) -> None:
    check_other_origins(lab)


def test_control_without_its_policy_for_origins_pages_of_others_cannot_call(lab: Lab) -> None:
    def without_cors(spec: dict[str, Any]) -> None:
        for route in spec["http"]:
            del route["corsPolicy"]

    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    request = asking(path=SPEECH_PATH, method="OPTIONS", headers=headers)
    change = mutated(lab, "VirtualService", TENANT, f"{VOICE}-public", without_cors)
    before = lab.request(request, VOICE).headers.get("access-control-allow-origin")
    assert before == ORIGIN
    with change:
        gone = "access-control-allow-origin"
        eventually(lambda: gone not in lab.request(request, VOICE).headers, 30, "without it")
        with pytest.raises(AssertionError):
            check_other_origins(lab)
    eventually(lambda: gone in lab.request(request, VOICE).headers, 30, "with it again")


def failing_issuer(port: int) -> dict[str, Any]:
    """The issuer under another name; where the port is not its own, it does not answer."""
    http = {"number": ISSUER_PORT, "name": "http", "protocol": "HTTP", "targetPort": port}
    return {
        "hosts": [FAILING_HOST],
        "addresses": [HUB_ADDRESS],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "endpoints": [{"address": HUB_ADDRESS}],
        "ports": [http],
    }


def fetching_from_it(ahead: bool) -> Mutation:
    """Keys come from the issuer that fails, and are fetched often; or only for requests."""

    def mutate(spec: dict[str, Any]) -> None:
        for provider in providers(spec):
            keys = provider["remote_jwks"]
            keys["http_uri"]["cluster"] = f"outbound|{ISSUER_PORT}||{FAILING_HOST}"
            keys["cache_duration"] = f"{KEYS_AGE_SECONDS}s"
            if not ahead:
                del keys["async_fetch"]

    return mutate


@contextmanager
def issuer_that_fails(lab: Lab, ahead: bool = True) -> Iterator[None]:
    """Gateway and voice have keys of an issuer that answers, and then does not any more.

    Envoy keeps keys that it has fetched ahead until there are others, but what it has fetched for a
    request no longer than they may be old (`JwksDataImpl` in jwks_cache.cc): the outage begins
    after keys have come without any request.
    """
    wanted = f'"cache_duration": "{KEYS_AGE_SECONDS}s"'
    with lab.object(*FAILING_ISSUER, failing_issuer(ISSUER_PORT)), ExitStack() as changes:
        for kind in (GATEWAY_FILTER, VOICE_FILTER):
            changes.enter_context(mutated(lab, *kind, fetching_from_it(ahead)))
        proxies = [*lab.gateways().values(), *lab.sidecars(VOICE).values()]
        eventually(lambda: all(has_taken(it, wanted) for it in proxies), 60, "the other issuer")
        eventually(lambda: speaks(lab) == REACHED, 60, "keys of that issuer")
        if ahead:
            for proxy in proxies:
                await_keys_fetched_ahead(proxy, wanted)
        lab.patch(*FAILING_ISSUER, failing_issuer(DEAD_PORT))
        eventually(lambda: all(is_dead(it) for it in proxies), 60, "the issuer does not answer")
        try:
            yield
        finally:
            lab.patch(*FAILING_ISSUER, failing_issuer(ISSUER_PORT))
            eventually(lambda: not any(is_dead(it) for it in proxies), 60, "the issuer answers")
            changes.close()
            eventually(
                lambda: not any(wanted in it.config() for it in proxies), 60, "the issuer of before"
            )
            # While it is there, since what goes over a kept connection still asks this issuer.
            eventually(lambda: speaks_everywhere(lab), 60, "keys of the issuer again")


def has_taken(proxy: Proxy, wanted: str) -> bool:
    """Whether a proxy works by this: no listener still waits to take the place of another."""
    (warming,) = proxy.stats("listener_manager.total_listeners_warming").values()
    return warming == 0 and wanted in proxy.config()


def await_keys_fetched_ahead(proxy: Proxy, wanted: str) -> None:
    """Waits until each listener that works by this has fetched keys while nobody asked."""

    def fetched() -> int:
        return sum(proxy.stats(f"{FAILING_HOST}.*upstream_rq_200").values())

    enough = fetched() + 2 * proxy.config().count(wanted)
    eventually(lambda: fetched() >= enough, 60, "keys are fetched without requests")


def is_dead(proxy: Proxy) -> bool:
    """Whether a proxy looks for the issuer that fails where nobody is."""
    said = proxy.ask_admin(f"/clusters?filter={FAILING_HOST}")
    return f"{HUB_ADDRESS}:{DEAD_PORT}::" in said and f"{HUB_ADDRESS}:{ISSUER_PORT}::" not in said


def speaks(lab: Lab) -> int | str:
    """What comes of a usual request."""
    return ask(lab.public(VOICE), SPEECH_PATH, lab.token())


def speaks_everywhere(lab: Lab) -> bool:
    """Whether a usual request does well over every connection that the gateway has kept."""
    slow = lab.asking({"chunks": 1, "first_ms": 500}, count=BURST)
    answers = lab.public(VOICE).load(slow, concurrency=BURST)
    return all(outcome(answer) == REACHED for answer in answers)


def check_outage(lab: Lab) -> None:
    """Tokens count while their issuer is out, for longer than keys may be old."""
    end = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < end:
        seen = speaks(lab)
        assert seen == REACHED, f"{seen} during the outage"
        time.sleep(0.5)


def test_tokens_count_while_their_issuer_is_out(lab: Lab) -> None:
    def patient(spec: dict[str, Any]) -> None:
        for provider in providers(spec):
            provider["remote_jwks"]["http_uri"]["timeout"] = "4s"

    with issuer_that_fails(lab):
        check_outage(lab)
        with mutated(lab, *GATEWAY_FILTER, patient):
            eventually(lambda: speaks(lab) == 503, 30, "a proxy that begins has no keys")
            answer = lab.request(lab.asking(), VOICE)
            assert answer.json["error"]["code"] == "keys_unavailable", answer
            assert answer.headers["retry-after"], answer
            lab.patch(*FAILING_ISSUER, failing_issuer(ISSUER_PORT))
            eventually(lambda: speaks(lab) == REACHED, 30, "keys once the issuer answers")


def test_control_as_istiod_writes_it_tokens_do_not_count_while_their_issuer_is_out(
    lab: Lab,
) -> None:
    with (
        issuer_that_fails(lab, ahead=False),
        pytest.raises(AssertionError, match="503 during the outage"),
    ):
        check_outage(lab)
