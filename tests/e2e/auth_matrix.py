"""Who may ask for what: the table that the tests hold the mesh to, and that the docs show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from voicemesh.contract import (
    ADMIN_PATH,
    ADMIN_SCOPE,
    BASIC_SCOPE,
    BATCH_PATH,
    BATCH_SCOPE,
    HEALTH_PATH,
    METRICS_PATH,
    PAGE_PATH,
    PREMIUM_SCOPE,
    READY_PATH,
    SPEECH_PATH,
    SPEECH_STREAM_PATH,
    TTS_PATH,
    VOICES_PATH,
)

REACHED: Final = 200
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
NOWHERE: Final = 404

SPEAKING: Final = frozenset({BASIC_SCOPE, PREMIUM_SCOPE})
ANYBODY: Final = frozenset[str]()


@dataclass(frozen=True)
class Token:
    """A kind of token.

    Attributes:
        name: what it is, in the docs.
        is_valid: whether the mesh takes it for one of its issuer's.
        scopes: what it allows.
        claims: how it differs from a usual one.
        is_sent: whether there is one at all.
        text: what is sent instead of a signed token.
        is_forged: whether another key signs it, under the name of the issuer's.
    """

    name: str
    is_valid: bool = False
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    is_sent: bool = True
    text: str | None = None
    is_forged: bool = False


def _valid(name: str, scope: str | Sequence[str] | None) -> Token:
    scopes = scope.split() if isinstance(scope, str) else scope or ()
    return Token(name, is_valid=True, scopes=frozenset(scopes), claims={"scope": scope})


def tokens(now: int) -> list[Token]:
    """All kinds, at this time."""
    return [
        Token("no token", is_sent=False),
        Token("garbage", text="garbage"),
        Token("garbage in three parts", text="e30.e30.e30"),
        Token("expired", claims={"exp": now - 120, "nbf": now - 600, "iat": now - 600}),
        Token("not yet valid", claims={"nbf": now + 600}),
        Token("wrong signature", is_forged=True),
        Token("wrong issuer", claims={"iss": "https://issuer.example.com"}),
        Token("wrong audience", claims={"aud": "another-service"}),
        Token("no audience", claims={"aud": None}),
        _valid("no scope", None),
        _valid(BASIC_SCOPE, BASIC_SCOPE),
        _valid(PREMIUM_SCOPE, PREMIUM_SCOPE),
        _valid(BATCH_SCOPE, BATCH_SCOPE),
        _valid(ADMIN_SCOPE, ADMIN_SCOPE),
        _valid("basic and premium, as a text", f"{BASIC_SCOPE} {PREMIUM_SCOPE}"),
        _valid("basic and premium, as a list", [BASIC_SCOPE, PREMIUM_SCOPE]),
        _valid("premium, as a list", [PREMIUM_SCOPE]),
        _valid("a longer name", f"{ADMIN_SCOPE}.x"),
    ]


@dataclass(frozen=True)
class Address:
    """A kind of request.

    Attributes:
        what: what it is for, in the docs.
        path: its path.
        method: its method.
        scopes: one of these is enough; none for what needs no token; None for what is not there.
        has_below: whether paths below it go the same way.
    """

    what: str
    path: str
    method: str = "POST"
    scopes: frozenset[str] | None = SPEAKING
    has_below: bool = False


def _tree(what: str, path: str, scope: str, method: str = "POST") -> Iterator[Address]:
    yield Address(what, path, method, frozenset({scope}), has_below=True)
    yield Address(f"{what}, one of them", f"{path}/one", method, frozenset({scope}), True)


ADDRESSES: Final = (
    Address("speech", SPEECH_PATH),
    Address("speech, plain form", TTS_PATH),
    Address("speech, as it is written", SPEECH_STREAM_PATH, "GET"),
    Address("speech, wrong method", SPEECH_PATH, "DELETE"),
    *_tree("voices", VOICES_PATH, PREMIUM_SCOPE, "GET"),
    Address("voices, removal", f"{VOICES_PATH}/one", "DELETE", frozenset({PREMIUM_SCOPE}), True),
    *_tree("batch", BATCH_PATH, BATCH_SCOPE),
    *_tree("administration", ADMIN_PATH, ADMIN_SCOPE, "GET"),
    Address("page", PAGE_PATH, "GET", ANYBODY),
    Address("health", HEALTH_PATH, "GET", ANYBODY),
    Address("readiness", READY_PATH, "GET", None),
    Address("metrics", METRICS_PATH, "GET", None),
    Address("unknown path", "/v1/audio/nothing", "GET", None),
    Address("unknown path, elsewhere", "/nothing", "POST", None),
)


@dataclass(frozen=True)
class Spelling:
    """A way to write a path.

    Attributes:
        name: what is different, in the docs.
        is_same: whether it is the same path to the mesh; otherwise it is one below it.
    """

    name: str
    is_same: bool = True

    def of(self, path: str) -> str:
        """A path, so written."""
        head, slash, last = path.rpartition("/")
        return {
            "as it is": path,
            "double slash": f"/{path}",
            "double slash within": f"{head}/{slash}{last}",
            "%2F": f"{head}{'%2F' if head else '/%2F'}{last}",
            "%2f and dots": f"/x%2f..{path}",
            "trailing slash": path if path == PAGE_PATH else f"{path}/",
            "trailing %2F": path if path == PAGE_PATH else f"{path}%2F",
        }[self.name]


SPELLINGS: Final = (
    Spelling("as it is"),
    Spelling("double slash"),
    Spelling("double slash within"),
    Spelling("%2F"),
    Spelling("%2f and dots"),
    Spelling("trailing slash", is_same=False),
    Spelling("trailing %2F", is_same=False),
)


def expected(token: Token, address: Address, spelling: Spelling = SPELLINGS[0]) -> int:
    """The status of the answer, `REACHED` where the server gives it."""
    is_there = spelling.is_same or address.has_below
    if address.path == PAGE_PATH:
        # Of nothing but slashes, Envoy leaves two.
        is_there = spelling.of(PAGE_PATH) not in ("//", "/%2F")
    scopes = address.scopes if is_there else None
    if token.is_sent and not token.is_valid:
        return UNAUTHENTICATED
    if scopes == ANYBODY:
        return REACHED
    if not token.is_sent:
        return UNAUTHENTICATED
    if scopes is None:
        return NOWHERE
    return REACHED if scopes & token.scopes else FORBIDDEN


COLUMNS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("no token", ("no token",)),
    (
        "invalid",
        (
            "garbage",
            "garbage in three parts",
            "expired",
            "not yet valid",
            "wrong signature",
            "wrong issuer",
            "wrong audience",
            "no audience",
        ),
    ),
    ("other scopes", ("no scope", "a longer name")),
    ("`tts.basic`", (BASIC_SCOPE,)),
    (
        "`tts.premium`",
        (
            PREMIUM_SCOPE,
            "basic and premium, as a text",
            "basic and premium, as a list",
            "premium, as a list",
        ),
    ),
    ("`tts.batch`", (BATCH_SCOPE,)),
    ("`tts.admin`", (ADMIN_SCOPE,)),
)
"""Columns of the docs' table, and the kinds of tokens that fare alike in each."""


def table() -> str:
    """The table of the docs, in Markdown."""
    kinds = {token.name: token for token in tokens(0)}
    lines = [
        f"| request | path | {' | '.join(name for name, _ in COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for address in ADDRESSES:
        cells: list[str] = []
        for _, names in COLUMNS:
            statuses = {expected(kinds[name], address) for name in names}
            (status,) = statuses
            cells.append("server" if status == REACHED else str(status))
        request = f"{address.what} | `{address.method} {address.path}`"
        lines.append(f"| {request} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spellings_table() -> str:
    """The table of spellings in the docs, in Markdown."""
    lines = ["| spelling | example | counts as |", "|---|---|---|"]
    for spelling in SPELLINGS:
        counts = "the path itself" if spelling.is_same else "a path below it"
        lines.append(f"| {spelling.name} | `{spelling.of(SPEECH_PATH)}` | {counts} |")
    return "\n".join(lines) + "\n"
