"""Sections about who may call: the issuers of access tokens, and what each voice asks of tokens."""

from __future__ import annotations

from infra.environment.section import LEFT_OUT, Section


class TokenIssuer(Section):
    """Who issues access tokens."""

    issuer: str
    jwks_uri: str
    audiences: tuple[str, ...]


class Identity(Section):
    """Whose tokens count, at the gateway and at every voice."""

    issuers: tuple[TokenIssuer, ...]


class Access(Section):
    """Who may call a voice, and what their tokens must allow."""

    tenants: tuple[str, ...] = LEFT_OUT
    callers: tuple[str, ...] = LEFT_OUT
    speech_scopes: tuple[str, ...] = LEFT_OUT
    voices_scopes: tuple[str, ...] = LEFT_OUT
    batch_scopes: tuple[str, ...] = LEFT_OUT
    admin_scopes: tuple[str, ...] = LEFT_OUT
