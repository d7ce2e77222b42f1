"""The stand-in for an identity provider: OAuth 2.0 client credentials, and the keys to its tokens.

    python -m infra.local.token_issuer --folder .voicemesh/issuer --host 10.245.0.1 --port 4567

It answers:

- `GET /.well-known/openid-configuration` (OpenID Connect Discovery 1.0), and the same document at
  `/.well-known/oauth-authorization-server` (RFC 8414)
- `GET /jwks.json`: the public keys (RFC 7517)
- `POST /oauth2/token`: the grant `client_credentials` (RFC 6749, section 4.4), credentials by
  HTTP Basic or in the form; tokens are JSON Web Tokens signed with RS256

Stand-in, in these points: it knows programs only, no people, so there is no authorization endpoint;
it speaks plain HTTP on the environment's own network; tokens cannot be revoked, and are good until
they expire.

Keys and clients are files (`infra.local.tokens`), read for each request. Ends with exit code 0 on
SIGTERM and SIGINT.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import logging
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, unquote_plus

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from infra.local.tokens import (
    ALGORITHM,
    ISSUER,
    KEYS_PATH,
    LIFETIME_SECONDS,
    TOKEN_PATH,
    Client,
    TokenFiles,
)
from voicemesh.contract import SCOPE_CLAIM, TENANT_CLAIM, TIER_CLAIM

KEYS_MAX_AGE_SECONDS: Final = 300
FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_FORM_BYTES: Final = 64 * 1024
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
# One or more scope-tokens with single blanks between them: RFC 6749, appendix A.4.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")

_log = logging.getLogger("issuer")


class TokenError(Exception):
    """A refusal in the form of RFC 6749, section 5.2."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status

    def answer(self) -> JSONResponse:
        challenge = {"WWW-Authenticate": 'Basic realm="voicemesh"'} if self.status == 401 else {}
        body = {"error": self.code, "error_description": self.description}
        return JSONResponse(body, self.status, {**_NO_STORE, **challenge})


def create_app(files: TokenFiles) -> FastAPI:
    """The issuer of the tokens that these files sign."""
    app = FastAPI(title="voicemesh token issuer", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.files = files
    app.include_router(_routes)
    app.add_exception_handler(TokenError, _on_token_error)
    return app


async def _files(request: Request) -> TokenFiles:
    return request.app.state.files


_Files = Annotated[TokenFiles, Depends(_files)]
_routes = APIRouter()


@_routes.get("/.well-known/openid-configuration")
@_routes.get("/.well-known/oauth-authorization-server")
async def discovery(files: _Files) -> dict[str, Any]:
    scopes = {scope for client in files.clients.values() for scope in client.scopes}
    return {
        "issuer": files.issuer,
        "token_endpoint": f"{files.issuer}{TOKEN_PATH}",
        "jwks_uri": f"{files.issuer}{KEYS_PATH}",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": sorted(scopes),
        "claims_supported": ["iss", "aud", "sub", TENANT_CLAIM, TIER_CLAIM, SCOPE_CLAIM],
    }


@_routes.get(KEYS_PATH)
async def keys(files: _Files) -> JSONResponse:
    headers = {"Cache-Control": f"public, max-age={KEYS_MAX_AGE_SECONDS}"}
    return JSONResponse(files.published, headers=headers)


@_routes.post(TOKEN_PATH)
async def token(request: Request, files: _Files) -> JSONResponse:
    form = parse_form(request.headers.get("content-type", ""), await _body(request))
    client = authenticate(files.clients, request.headers.get("authorization"), form)
    grant = form.get("grant_type")
    if grant is None:
        raise TokenError("invalid_request", "grant_type is missing")
    if grant != "client_credentials":
        raise TokenError("unsupported_grant_type", "the grant here is client_credentials")
    scope = granted_scope(client, form.get("scope"))
    signed = files.token(tenant=client.tenant, tier=client.tier, scope=scope, sub=client.name)
    _log.info("token for %s, scope %r", client.name, scope)
    answer = {
        "access_token": signed,
        "token_type": "Bearer",
        "expires_in": LIFETIME_SECONDS,
        "scope": scope,
    }
    return JSONResponse(answer, headers=_NO_STORE)


async def _on_token_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TokenError)  # noqa: S101
    _log.info("refused: %s, %s", error.code, error.description)
    return error.answer()


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM_BYTES:
            raise TokenError("invalid_request", f"the form exceeds {_LONGEST_FORM_BYTES} bytes")
    return bytes(body)


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """The parameters of a form; those without a value count as left out.

    Raises:
        TokenError: it is no form, or a parameter is there twice.
    """
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise TokenError("invalid_request", f"the content type is not {FORM}")
    try:
        pairs = parse_qsl(body.decode("ascii"), errors="strict", max_num_fields=100)
    except ValueError as error:
        raise TokenError("invalid_request", "the body is not a form in UTF-8") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise TokenError("invalid_request", "a parameter is there more than once")
    return form


def authenticate(
    clients: Mapping[str, Client], authorization: str | None, form: Mapping[str, str]
) -> Client:
    """The client that proves to be one.

    Raises:
        TokenError: the credentials are missing, wrong, or given in two ways.
    """
    in_form = form.get("client_id"), form.get("client_secret")
    if authorization is None:
        name, secret = in_form
    elif in_form[1] is not None:
        raise TokenError("invalid_request", "credentials are in the header and in the form")
    else:
        name, secret = basic_credentials(authorization)
        if in_form[0] not in (None, name):
            raise TokenError("invalid_request", "client_id is not the client of the header")
    client = clients.get(name or "")
    # Compared with itself where there is no such client: both take the same time.
    known = client.secret if client is not None else secret or ""
    matches = hmac.compare_digest((secret or "").encode(), known.encode())
    if client is None or not matches:
        raise TokenError("invalid_client", "no client has this id and secret", 401)
    return client


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Id and secret in an `Authorization` header: both encoded as in a form (RFC 6749, 2.3.1).

    Raises:
        TokenError: it has another form.
    """
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
        name, colon, secret = decoded.partition(":")
        if not colon:
            raise ValueError("no colon")
        return unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as error:
        raise TokenError("invalid_client", "the header has no Basic credentials", 401) from error


def granted_scope(client: Client, asked: str | None) -> str:
    """The scopes of a token, with blanks between them: what was asked for, or all there are.

    Raises:
        TokenError: that is no list of scopes, or the client may not have one of them.
    """
    if asked is None:
        return " ".join(client.scopes)
    if not _SCOPE.fullmatch(asked):
        raise TokenError("invalid_scope", "scope is not a list of names with blanks between them")
    wanted = dict.fromkeys(asked.split(" "))
    if not {*wanted} <= {*client.scopes}:
        raise TokenError("invalid_scope", f"{client.name} may have {' '.join(client.scopes)}")
    return " ".join(wanted)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.token_issuer", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where keys and clients are")
    parser.add_argument("--issuer", default=ISSUER, help="URL by which its tokens name it")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=4567, help="TCP port to bind; 0 picks one")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    files = TokenFiles(options.folder, options.issuer)
    files.ensure()
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal once more after it has shut down.
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(files),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
