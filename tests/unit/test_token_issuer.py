"""The stand-in for an identity provider: its answers, its refusals, and its tokens."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidScopeError
from requests_oauthlib import OAuth2Session

from infra.local.paths import CHECKOUT
from infra.local.token_issuer import (
    FORM,
    KEYS_MAX_AGE_SECONDS,
    TokenError,
    authenticate,
    basic_credentials,
    create_app,
    granted_scope,
    parse_form,
)
from infra.local.tokens import (
    AUDIENCE,
    ISSUER,
    KEYS_PATH,
    LIFETIME_SECONDS,
    TOKEN_PATH,
    Client,
    TokenFiles,
    new_key,
)
from infra.local.waiting import wait_until

GRANT = {"grant_type": "client_credentials"}
ODD = Client("odd: client", "se:cr et%+ü", ("tts.basic", "tts.premium"), tenant="acme")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("issuer")


@pytest.fixture
def files(folder: Path) -> TokenFiles:
    files = TokenFiles(folder)
    files.ensure()
    return files


@pytest.fixture
def asked(files: TokenFiles) -> TestClient:
    return TestClient(create_app(files))


def _verified(token: str, published: Any) -> dict[str, Any]:
    keys: Any = KeySet.import_key_set(published)
    return jwt.decode(token, keys, algorithms=["RS256"]).claims


def test_a_client_gets_a_token_that_says_who_it_is(asked: TestClient, files: TokenFiles) -> None:
    client = files.clients["premium"]
    before = int(time.time())
    answer = asked.post(TOKEN_PATH, data=GRANT, auth=(client.name, client.secret))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    token = body.pop("access_token")
    assert body == {
        "token_type": "Bearer",
        "expires_in": LIFETIME_SECONDS,
        "scope": "tts.basic tts.premium",
    }
    claims = _verified(token, asked.get(KEYS_PATH).json())
    issued, token_id = claims.pop("iat"), claims.pop("jti")
    assert before <= issued <= time.time()
    assert token_id
    assert claims == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "premium",
        "nbf": issued,
        "exp": issued + LIFETIME_SECONDS,
        "tenant": "tts",
        "tier": "standard",
        "scope": "tts.basic tts.premium",
    }


def test_each_token_has_an_id_of_its_own(files: TokenFiles) -> None:
    ids = {_verified(files.token(), files.published)["jti"] for _ in range(3)}
    assert len(ids) == 3


def test_discovery_leads_to_the_keys_and_the_tokens(asked: TestClient) -> None:
    document = asked.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == ISSUER
    assert document["jwks_uri"] == f"{ISSUER}{KEYS_PATH}"
    assert document["token_endpoint"] == f"{ISSUER}{TOKEN_PATH}"
    assert document["scopes_supported"] == ["tts.admin", "tts.basic", "tts.batch", "tts.premium"]
    assert asked.get("/.well-known/oauth-authorization-server").json() == document


def test_published_keys_are_public_parts_that_may_be_cached(asked: TestClient) -> None:
    answer = asked.get(KEYS_PATH)
    assert answer.headers["cache-control"] == f"public, max-age={KEYS_MAX_AGE_SECONDS}"
    for key in answer.json()["keys"]:
        assert key.keys() == {"kty", "n", "e", "use", "alg", "kid"}


@pytest.mark.parametrize(
    ("form", "content_type", "status", "code"),
    [
        ("grant_type=client_credentials", FORM, 200, None),
        ("grant_type=client_credentials", f"{FORM}; charset=utf-8", 200, None),
        ("grant_type=client_credentials&unknown=1", FORM, 200, None),
        ("grant_type=client_credentials&scope=tts.basic", FORM, 200, None),
        ("grant_type=client_credentials&scope=", FORM, 200, None),
        ("grant_type=client_credentials", "application/json", 400, "invalid_request"),
        ("grant_type=client_credentials", "", 400, "invalid_request"),
        ("", FORM, 400, "invalid_request"),
        ("grant_type=", FORM, 400, "invalid_request"),
        ("grant_type=password", FORM, 400, "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=a&scope=a", FORM, 400, "invalid_request"),
        ("grant_type=client_credentials&scope=tts.admin", FORM, 400, "invalid_scope"),
        ("grant_type=client_credentials&scope=tts.basic+tts.admin", FORM, 400, "invalid_scope"),
        ("grant_type=client_credentials&scope=tts.basic++x", FORM, 400, "invalid_scope"),
        ("grant_type=client_credentials&scope=%22", FORM, 400, "invalid_scope"),
        ("grant_type=%FF", FORM, 400, "invalid_request"),
        ("grant_type=\u00fc", FORM, 400, "invalid_request"),
        ("grant_type=client_credentials&x=" + "x" * 70_000, FORM, 400, "invalid_request"),
        ("&".join(f"x{n}=1" for n in range(200)), FORM, 400, "invalid_request"),
    ],
)
def test_a_request_is_answered_as_the_standard_says(
    asked: TestClient,
    files: TokenFiles,
    form: str,
    content_type: str,
    status: int,
    code: str | None,
) -> None:
    client = files.clients["basic"]
    answer = asked.post(
        TOKEN_PATH,
        content=form.encode(),
        headers={"Content-Type": content_type},
        auth=(client.name, client.secret),
    )
    assert (answer.status_code, answer.json().get("error")) == (status, code)
    assert answer.headers["cache-control"] == "no-store"


def test_only_a_post_gets_a_token(asked: TestClient) -> None:
    assert asked.get(TOKEN_PATH, params=GRANT).status_code == 405


def _basic(name: str, secret: str) -> str:
    pair = f"{quote_plus(name)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "form", "refusal"),
    [
        (_basic(ODD.name, ODD.secret), {}, None),
        (_basic(ODD.name, ODD.secret).replace("Basic", "basic"), {}, None),
        (None, {"client_id": ODD.name, "client_secret": ODD.secret}, None),
        (_basic(ODD.name, ODD.secret), {"client_id": ODD.name}, None),
        (_basic(ODD.name, ODD.secret), {"client_id": "other"}, "invalid_request"),
        (_basic(ODD.name, ODD.secret), {"client_secret": ODD.secret}, "invalid_request"),
        (_basic(ODD.name, "wrong"), {}, "invalid_client"),
        (_basic(ODD.name, ""), {}, "invalid_client"),
        (_basic("nobody", ODD.secret), {}, "invalid_client"),
        (_basic("nobody", ""), {}, "invalid_client"),
        (_basic("", ""), {}, "invalid_client"),
        ("Bearer abc", {}, "invalid_client"),
        ("Basic", {}, "invalid_client"),
        ("Basic ???", {}, "invalid_client"),
        ("Basic " + base64.b64encode(b"no-colon").decode(), {}, "invalid_client"),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), {}, "invalid_client"),
        ("Basic " + base64.b64encode(b"%FF:%FF").decode(), {}, "invalid_client"),
        (None, {}, "invalid_client"),
        (None, {"client_id": ODD.name}, "invalid_client"),
        (None, {"client_id": ODD.name, "client_secret": "wrong"}, "invalid_client"),
        (None, {"client_secret": ODD.secret}, "invalid_client"),
    ],
)
def test_credentials_are_proved_in_one_way(
    authorization: str | None, form: dict[str, str], refusal: str | None
) -> None:
    clients = {ODD.name: ODD}
    if refusal is None:
        assert authenticate(clients, authorization, form) is ODD
        return
    with pytest.raises(TokenError) as caught:
        authenticate(clients, authorization, form)
    assert caught.value.code == refusal
    assert caught.value.status == (401 if refusal == "invalid_client" else 400)


def test_wrong_credentials_are_answered_with_a_challenge(asked: TestClient) -> None:
    answer = asked.post(TOKEN_PATH, data=GRANT, auth=("basic", "wrong"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert answer.json()["error"] == "invalid_client"


@given(st.text(), st.text())
def test_any_id_and_secret_come_through_the_header(name: str, secret: str) -> None:
    assert basic_credentials(_basic(name, secret)) == (name, secret)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_any_header_is_either_read_or_refused(header: str) -> None:
    with _refusing("invalid_client"):
        assert isinstance("".join(basic_credentials(header)), str)


@given(st.binary())
def test_any_body_is_either_read_or_refused(body: bytes) -> None:
    with _refusing("invalid_request"):
        assert all(parse_form(FORM, body).values())


@given(st.text())
def test_nobody_is_granted_more_than_it_may_have(asked: str) -> None:
    with _refusing("invalid_scope"):
        assert {*granted_scope(ODD, asked).split(" ")} <= {*ODD.scopes}


@contextmanager
def _refusing(code: str) -> Iterator[None]:
    """Lets a refusal pass, if it is of this kind."""
    try:
        yield
    except TokenError as error:
        if error.code != code:
            raise


def test_rotation_follows_the_files(asked: TestClient, files: TokenFiles) -> None:
    (old, spare), new = files.keys, new_key()
    by_old = files.token()
    files.publish(new)
    assert _kids(asked) == [old.kid, spare.kid, new.kid]
    assert _signing_kid(files.token()) == old.kid
    files.sign_with(new)
    assert _kids(asked) == [new.kid, old.kid, spare.kid]
    assert _signing_kid(files.token()) == new.kid
    assert _verified(by_old, asked.get(KEYS_PATH).json())["sub"] == "basic"
    files.withdraw(old)
    assert _kids(asked) == [new.kid, spare.kid]
    assert _verified(files.token(), asked.get(KEYS_PATH).json())["sub"] == "basic"
    with pytest.raises(InvalidKeyIdError):
        _verified(by_old, asked.get(KEYS_PATH).json())


def _kids(asked: TestClient) -> list[str]:
    return [key["kid"] for key in asked.get(KEYS_PATH).json()["keys"]]


def _signing_kid(token: str) -> str:
    padded = token.partition(".")[0] + "=="
    found = re.search(r'"kid":\s*"([^"]+)"', base64.urlsafe_b64decode(padded).decode())
    assert found
    return found[1]


def test_a_token_of_another_key_does_not_verify(files: TokenFiles) -> None:
    forged = new_key()
    forged_kid: Any = forged.as_dict(private=True) | {"kid": files.keys[0].kid}
    token = files.token(key=type(forged).import_key(forged_kid))
    with pytest.raises(BadSignatureError):
        _verified(token, files.published)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tenant": "acme"}, {"tenant": "acme"}),
        ({"tenant": None}, {"tenant": None}),
        ({"scope": ["a", "b"]}, {"scope": ["a", "b"]}),
        ({"scope": "a b"}, {"scope": "a b"}),
        ({"scope": None}, {"scope": None}),
        ({"iss": "elsewhere", "aud": ["x", "y"]}, {"iss": "elsewhere", "aud": ["x", "y"]}),
        ({"sub": None}, {"sub": None}),
    ],
)
def test_a_test_may_say_anything_in_a_token(
    files: TokenFiles, given: dict[str, Any], said: dict[str, Any]
) -> None:
    claims = _verified(files.token(**given), files.published)
    assert {name: claims.get(name) for name in said} == said


def test_clients_come_and_go_with_the_file(asked: TestClient, files: TokenFiles) -> None:
    def status() -> int:
        return asked.post(TOKEN_PATH, data=GRANT, headers=header).status_code

    header = {"Authorization": _basic(ODD.name, ODD.secret)}
    assert status() == 401
    files.add_client(ODD)
    assert status() == 200
    files.remove_client(ODD.name)
    assert status() == 401


def test_keys_and_secrets_are_their_owners_alone(files: TokenFiles) -> None:
    assert {path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {0o600}
    assert {path.name for path in files.folder.iterdir()} == {"keys.json", "clients.json"}
    client = files.clients["basic"]
    assert client.secret not in repr(client)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    log = folder.with_suffix(".log")
    argv = [sys.executable, "-m", "infra.local.token_issuer", "--folder", str(folder), "--port=0"]
    with log.open("w") as stream:
        process = subprocess.Popen(argv, cwd=CHECKOUT, stderr=stream)
    listening = re.compile(r"running on (\S+)")

    def missing() -> str | None:
        assert process.poll() is None, log.read_text()
        return None if listening.search(log.read_text()) else "it does not listen"

    wait_until(missing, "the issuer to start", 30, log)
    found = listening.search(log.read_text())
    assert found
    yield found[1]
    process.terminate()
    assert process.wait(timeout=10) == 0


@pytest.fixture
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def test_a_stock_client_gets_tokens(url: str, files: TokenFiles, plain_http: None) -> None:
    client = files.clients["premium"]
    with OAuth2Session(
        client=BackendApplicationClient(client.name, scope=["tts.premium"])
    ) as session:
        session.trust_env = False
        answer = session.fetch_token(url + TOKEN_PATH, client_secret=client.secret)
    assert answer["scope"] == ["tts.premium"]
    published = httpx.get(url + KEYS_PATH, trust_env=False).json()
    assert _verified(answer["access_token"], published)["scope"] == "tts.premium"


@pytest.mark.parametrize(
    ("secret", "scope", "refusal"),
    [("wrong", "tts.basic", InvalidClientError), (None, "tts.admin", InvalidScopeError)],
)
def test_a_stock_client_understands_refusals(
    url: str,
    files: TokenFiles,
    plain_http: None,
    secret: str | None,
    scope: str,
    refusal: type[Exception],
) -> None:
    client = files.clients["basic"]
    with OAuth2Session(client=BackendApplicationClient(client.name, scope=[scope])) as session:
        session.trust_env = False
        with pytest.raises(refusal):
            session.fetch_token(url + TOKEN_PATH, client_secret=secret or client.secret)
