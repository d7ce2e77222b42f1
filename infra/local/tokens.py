"""Access tokens of the embedded environment: the issuer's keys and clients, and what they sign.

Both are files in one folder, readable by their owner only:

- `keys.json`, a JSON Web Key Set (RFC 7517) with the private keys. The first one signs; the public
  parts of all are published.
- `clients.json`, the clients with their secrets, and what their tokens say of them.

The issuer reads them for each request, so that whoever writes them changes what it does at once.
Tests rotate keys by this module, and make tokens that the issuer never would.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey

from infra.local.certificates import write_private
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import STATE
from infra.local.topology import HUB_ADDRESS, ISSUER_PORT
from voicemesh.contract import (
    ADMIN_SCOPE,
    BASIC_SCOPE,
    BATCH_SCOPE,
    PREMIUM_SCOPE,
    SCOPE_CLAIM,
    TENANT_CLAIM,
    TIER_CLAIM,
    VIP_TIER,
)

ISSUER: Final = f"http://{HUB_ADDRESS}:{ISSUER_PORT}"
"""The issuer's name, and where the environment's pods reach it."""
ISSUER_ON_THIS_MACHINE: Final = f"http://127.0.0.1:{ISSUER_PORT}"
AUDIENCE: Final = "voicemesh"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  # a path
KEYS_PATH: Final = "/jwks.json"
LIFETIME_SECONDS: Final = 3600
ALGORITHM: Final = "RS256"
DEFAULT_CLIENT: Final = "basic"

_TENANT: Final = "tts"
_STANDARD_TIER: Final = "standard"
_KEY_BITS: Final = 2048
_PUBLIC: Final = ("kty", "n", "e", "use", "alg", "kid")


@dataclass(frozen=True)
class Client:
    """A program that may ask for tokens.

    Attributes:
        name: its id.
        secret: what it proves that id with.
        scopes: the most that it may ask for; what it gets where it asks for nothing in particular.
        tenant: whom it belongs to; None for a token without that claim.
        tier: how its requests are ranked; None for a token without that claim.
    """

    name: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...]
    tenant: str | None = _TENANT
    tier: str | None = _STANDARD_TIER


@dataclass(frozen=True)
class TokenFiles:
    """The folder with an issuer's keys and clients.

    Attributes:
        folder: where the two files are.
        issuer: the name by which its tokens say who issued them.
    """

    folder: Path
    issuer: str = ISSUER

    def ensure(self) -> None:
        """Makes two keys, and the usual clients, where there are none."""
        if not self._keys_file.exists():
            # The second is known to all proxies before anything is signed with it.
            self._write_keys([new_key(), new_key()])
        if not self._clients_file.exists():
            self._write_clients(usual_clients())

    @property
    def keys(self) -> list[RSAKey]:
        """All keys that verify; the first one signs."""
        return [RSAKey.import_key(each) for each in json.loads(self._keys_file.read_text())["keys"]]

    @property
    def published(self) -> dict[str, Any]:
        """The key set as everybody may see it."""
        # Every proxy asks for it: a key is not computed from its numbers for each of them.
        whole = json.loads(self._keys_file.read_text())["keys"]
        return {"keys": [{name: key[name] for name in _PUBLIC} for key in whole]}

    @property
    def clients(self) -> dict[str, Client]:
        """All clients, by their names."""
        entries = json.loads(self._clients_file.read_text())
        return {
            entry["name"]: Client(**{**entry, "scopes": tuple(entry["scopes"])})
            for entry in entries
        }

    def publish(self, key: RSAKey) -> None:
        """Publishes a further key, with which nothing is signed yet."""
        self._write_keys([*self.keys, key])

    def sign_with(self, key: RSAKey) -> None:
        """Signs with this key from now on, which is published with the others."""
        self._write_keys([key, *(other for other in self.keys if other.kid != key.kid)])

    def withdraw(self, key: RSAKey) -> None:
        """Publishes a key no longer. The next one signs, if it was this."""
        self._write_keys([other for other in self.keys if other.kid != key.kid])

    def add_client(self, client: Client) -> None:
        """Adds a client, or replaces the one of that name."""
        self._write_clients([*({**self.clients, client.name: client}).values()])

    def remove_client(self, name: str) -> None:
        """Forgets a client. Its tokens are good until they expire."""
        self._write_clients([client for client in self.clients.values() if client.name != name])

    def token(
        self,
        *,
        tenant: str | None = _TENANT,
        tier: str | None = _STANDARD_TIER,
        scope: str | Sequence[str] | None = BASIC_SCOPE,
        key: RSAKey | None = None,
        lifetime_seconds: float = LIFETIME_SECONDS,
        **claims: Any,
    ) -> str:
        """Signs a token without asking the issuer.

        Args:
            tenant: claim of this name; None leaves it out.
            tier: claim of this name; None leaves it out.
            scope: claim of this name, a string or a list; None leaves it out.
            key: signs it, published or not; by default, what the issuer signs with.
            lifetime_seconds: from now until it expires; negative for one that has.
            claims: take the place of those that a token has, or come beside them; None leaves one
                out.
        """
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": DEFAULT_CLIENT,
            "iat": now,
            "nbf": now,
            "exp": now + int(lifetime_seconds),
            "jti": uuid.uuid4().hex,
            TENANT_CLAIM: tenant,
            TIER_CLAIM: tier,
            SCOPE_CLAIM: [*scope] if scope is not None and not isinstance(scope, str) else scope,
            **claims,
        }
        signing = key or self.keys[0]
        header = {"alg": ALGORITHM, "kid": signing.kid, "typ": "JWT"}
        return jwt.encode(header, {k: v for k, v in said.items() if v is not None}, signing)

    @property
    def _keys_file(self) -> Path:
        return self.folder / "keys.json"

    @property
    def _clients_file(self) -> Path:
        return self.folder / "clients.json"

    def _write_keys(self, keys: Sequence[RSAKey]) -> None:
        whole = {"keys": [key.as_dict(private=True) for key in keys]}
        write_private(self._keys_file, json.dumps(whole).encode())

    def _write_clients(self, clients: Sequence[Client]) -> None:
        write_private(self._clients_file, json.dumps([*map(asdict, clients)], indent=1).encode())


def token_files() -> TokenFiles:
    """The files of this checkout's environment."""
    return TokenFiles(STATE / "issuer")


def new_key() -> RSAKey:
    """A key that nobody knows yet, with an id of its own."""
    parameters: Any = {"use": "sig", "alg": ALGORITHM, "kid": uuid.uuid4().hex}
    return RSAKey.generate_key(_KEY_BITS, parameters, private=True)


def usual_clients() -> list[Client]:
    """One client for each kind of caller, with secrets that were made now."""
    grants = {
        DEFAULT_CLIENT: (BASIC_SCOPE,),
        "premium": (BASIC_SCOPE, PREMIUM_SCOPE),
        "vip": (BASIC_SCOPE, PREMIUM_SCOPE),
        "batch": (BASIC_SCOPE, BATCH_SCOPE),
        "admin": (BASIC_SCOPE, PREMIUM_SCOPE, BATCH_SCOPE, ADMIN_SCOPE),
    }
    return [
        Client(
            name,
            secrets.token_urlsafe(32),
            scopes,
            tier=VIP_TIER if name == VIP_TIER else _STANDARD_TIER,
        )
        for name, scopes in grants.items()
    ]


def fetch_token(
    name: str = DEFAULT_CLIENT, scope: str | None = None, issuer_url: str = ISSUER_ON_THIS_MACHINE
) -> str:
    """Asks the running issuer for a token of one of the environment's clients.

    Args:
        name: which client asks.
        scope: scopes with blanks between them; None for all that it may have.
        issuer_url: where the issuer is reached from here.

    Raises:
        LocalEnvironmentError: there is no such client, the issuer refuses, or none answers.
    """
    clients = token_files().clients
    if name not in clients:
        raise LocalEnvironmentError(f"no client has the name {name!r}", f"one of {[*clients]}")
    client = clients[name]
    form = {"grant_type": "client_credentials", **({"scope": scope} if scope is not None else {})}
    try:
        answer = httpx.post(
            f"{issuer_url}{TOKEN_PATH}",
            data=form,
            auth=(client.name, client.secret),
            trust_env=False,
            timeout=10,
        )
    except httpx.HTTPError as error:
        raise LocalEnvironmentError(
            f"the token issuer at {issuer_url} does not answer: {error}", "run `make up`"
        ) from error
    if answer.is_error:
        raise LocalEnvironmentError(f"the token issuer refuses client {name!r}: {answer.text}")
    return answer.json()["access_token"]
