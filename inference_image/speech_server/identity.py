"""Who calls, as the proxies on the way have verified it.

Each proxy that ends mutual TLS notes its caller's certificate in a header, `CLIENT_CERT_HEADER`,
behind what the request brought along. So the last element is the word of this pod's own proxy and
names the direct peer; everything before it may have been written by that peer.

Where the peer is the gateway, the identity headers count: the gateway removes those that clients
send, and sets them from a verified token. Any other peer is a workload of the mesh. Its namespace
is its tenant, its identity headers count nothing, and what the mesh let through, it may do.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from speech_server.contract import (
    BASIC_SCOPE,
    CLIENT_CERT_HEADER,
    HEALTH_PATH,
    METRICS_PATH,
    PREMIUM_SCOPE,
    READY_PATH,
    SCOPE_HEADER,
    SUBJECT_HEADER,
    TENANT_HEADER,
    TIER_HEADER,
)
from speech_server.errors import PermissionDeniedError

OPEN_PATHS: Final = frozenset({HEALTH_PATH, READY_PATH, METRICS_PATH})
"""What the node and the pod's own proxy ask, without a certificate."""

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
"""Names that are safe in logs, and as a part of a path in storage."""

_SPIFFE: Final = "spiffe://"
_PRINCIPAL: Final = re.compile(r"[^/]+/ns/([^/]+)/sa/[^/]+")
_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)')
_SCOPE_KEY: Final = "voicemesh.caller"
_BLANKS: Final = " \t"
_POLICY_VIOLATION: Final = 1008


class Way(StrEnum):
    """How a request came here."""

    GATEWAY = "gateway"
    """From outside, with a verified token or without one."""
    MESH = "mesh"
    """From another workload of the mesh."""
    LOCAL = "local"
    """Without a proxy, where none is expected: on a developer's machine."""


class MalformedHeaderError(ValueError):
    """A header that no proxy of ours would send."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request."""

    way: Way
    tenant: str | None = None
    """Whom the request counts for; None where nobody said."""
    tier: str | None = None
    subject: str | None = None
    """The token's subject, or the identity of the workload."""
    scopes: frozenset[str] = frozenset()
    """What the token allows. Only of meaning for those who come by the gateway."""

    @classmethod
    def attach(cls, scope: Scope, caller: Caller) -> None:
        scope[_SCOPE_KEY] = caller

    @staticmethod
    def of(scope: Scope) -> Caller:
        return scope[_SCOPE_KEY]

    @staticmethod
    def known(scope: Scope) -> Caller | None:
        """The caller, if it has been found out."""
        return scope.get(_SCOPE_KEY)

    def may_use(self, *, preset: bool) -> bool:
        """Whether it may speak with a preset voice, or with one made from a reference."""
        if self.way is not Way.GATEWAY:
            return True
        sufficient = {BASIC_SCOPE, PREMIUM_SCOPE} if preset else {PREMIUM_SCOPE}
        return bool(sufficient & self.scopes)

    def require(self, *, preset: bool, voice: str) -> None:
        """Refuses a voice that the caller's token does not cover.

        Raises:
            PermissionDeniedError: names the scope that is missing.
        """
        if self.may_use(preset=preset):
            return
        kind, missing = ("", BASIC_SCOPE) if preset else ("no ", PREMIUM_SCOPE)
        raise PermissionDeniedError(
            f"voice '{voice}' is {kind}preset: it needs a token with the scope {missing}.",
            code="insufficient_permissions",
            param="voice",
        )


def identify(headers: Headers, gateway_principal: str | None) -> Caller:
    """Who makes the request with these headers.

    Args:
        headers: all that it came with.
        gateway_principal: identity of the gateway's proxies, `cluster.local/ns/…/sa/…`; None where
            there is no gateway.

    Raises:
        PermissionDeniedError: nobody vouches for the caller, or a header is not as a proxy of the
            mesh writes it.
    """
    certificates = ",".join(headers.getlist(CLIENT_CERT_HEADER))
    if not certificates:
        if gateway_principal is None:
            return Caller(Way.LOCAL)
        raise _unidentified("it did not come through the mesh")
    try:
        peer = direct_peer(certificates)
        if peer == gateway_principal:
            return _by_gateway(headers)
        return Caller(Way.MESH, tenant=namespace_of(peer), subject=peer)
    except MalformedHeaderError as error:
        raise _unidentified(str(error)) from error


def direct_peer(certificates: str) -> str:
    """The identity in the last element of the header, without `spiffe://`.

    Raises:
        MalformedHeaderError: the element has no identity, or several.
    """
    identities = {value for key, value in pairs(last_element(certificates)) if key == "URI"}
    if len(identities) != 1:
        raise MalformedHeaderError(f"the peer's certificate has {len(identities)} identities")
    (identity,) = identities
    if not identity.startswith(_SPIFFE):
        raise MalformedHeaderError("the peer's identity is not of SPIFFE")
    return identity.removeprefix(_SPIFFE)


def namespace_of(principal: str) -> str:
    """The namespace in a workload's identity.

    Raises:
        MalformedHeaderError: it has another form than Istio gives it.
    """
    match = _PRINCIPAL.fullmatch(principal)
    if match is None:
        raise MalformedHeaderError("the peer's identity names no namespace")
    return match[1]


def last_element(certificates: str) -> str:
    """What stands behind the last comma outside quotes.

    Read from its end: what a caller wrote before it, such as a quote that is never closed, cannot
    then change where the last element begins.
    """
    quoted = False
    for index in range(len(certificates) - 1, -1, -1):
        character = certificates[index]
        if character == '"' and not _is_escaped(certificates, index):
            quoted = not quoted
        elif character == "," and not quoted:
            return certificates[index + 1 :].strip(_BLANKS)
    return certificates.strip(_BLANKS)


def _is_escaped(text: str, index: int) -> bool:
    before = text[:index]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def pairs(element: str) -> list[tuple[str, str]]:
    """Keys and values of an element, in order; keys may repeat.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert

    Raises:
        MalformedHeaderError: it is not `key=value`, separated by semicolons.
    """
    found: list[tuple[str, str]] = []
    end = -1
    while end < len(element):
        match = _PAIR.match(element, end + 1)
        if match is None or element[match.end() : match.end() + 1] not in ("", ";"):
            raise MalformedHeaderError(f"{CLIENT_CERT_HEADER} is malformed")
        found.append((match[1], _unquoted(match[2])))
        end = match.end()
    return found


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def scopes(header: str) -> frozenset[str]:
    """Scopes in a header: words with blanks between them, or a JSON list. Of neither: none."""
    if not header.lstrip().startswith("["):
        return frozenset(header.split())
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        return frozenset()
    if not all(isinstance(entry, str) for entry in entries):
        return frozenset()
    return frozenset(entries)


def _by_gateway(headers: Headers) -> Caller:
    tenant = _single(headers, TENANT_HEADER)
    if tenant is not None and not TENANT.fullmatch(tenant):
        raise MalformedHeaderError(
            "the token's tenant is not up to 128 of A-Z, a-z, 0-9 and '._:@-', as in 'acme'"
        )
    return Caller(
        Way.GATEWAY,
        tenant=tenant,
        tier=_single(headers, TIER_HEADER),
        subject=_single(headers, SUBJECT_HEADER),
        scopes=scopes(_single(headers, SCOPE_HEADER) or ""),
    )


def _single(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise MalformedHeaderError(f"{name} is there {len(values)} times")
    return values[0] if values and values[0] else None


def _unidentified(reason: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"the caller of this request is not known: {reason}.", code="unidentified_caller"
    )


class CallerIdentity:
    """Finds out who calls before the request's body is read, and refuses whom nobody vouches for.

    What is asked at `OPEN_PATHS` is answered to anybody.
    """

    def __init__(self, app: ASGIApp, gateway_principal: str | None) -> None:
        self._app = app
        self._gateway_principal = gateway_principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            Caller.attach(scope, identify(Headers(scope=scope), self._gateway_principal))
        except PermissionDeniedError:
            if scope["type"] != "websocket":
                raise
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        await self._app(scope, receive, send)
