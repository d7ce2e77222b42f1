"""What proxies answer where they let a request go no further, in the form of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from voicemesh.istio.specs import ConfigPatch

NOT_AUTHENTICATED: Final = "jwt_authn_access_denied"
"""How the details of a response begin that the verification of tokens gave.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details"""

NOT_AUTHORIZED: Final = "rbac_access_denied_matched_policy"
"""How those begin that an AuthorizationPolicy gave."""

NO_ROUTE: Final = "route_not_found"

CONNECTION_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_TYPES: Final = "type.googleapis.com/envoy.extensions"
_REALM: Final = "voicemesh"
_SERVER_ERROR: Final = 500
_CEL: Final = "envoy.access_loggers.extension_filters.cel"


def refusal(
    details: str,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What to answer instead of a proxy's own words.

    Args:
        details: how the details of the response begin.
        status: of the answer.
        code: by which programs tell it from others.
        message: for people, without quotes; `%LOCAL_REPLY_BODY%` stands for the proxy's own words.
        headers: further ones of the answer.
    """
    kind = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {
        "filter": {
            "extension_filter": {
                "name": _CEL,
                "typed_config": {
                    "@type": f"{_TYPES}.access_loggers.filters.cel.v3.ExpressionFilter",
                    "expression": f"response.code_details.startsWith('{details}')",
                },
            }
        },
        "status_code": status,
        "body_format_override": {
            # As text, since a null in an object would not reach the API server.
            "text_format_source": {"inline_string": json.dumps({"error": error})},
            "content_type": "application/json",
        },
        "headers_to_add": [
            {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for name, value in (headers or {}).items()
        ],
    }


def challenge(error: str | None = None) -> dict[str, str]:
    """The header that says what is wrong with a token (RFC 6750, section 3), or that one is
    missing."""
    says = f', error="{error}"' if error is not None else ""
    return {"www-authenticate": f'Bearer realm="{_REALM}"{says}'}


def answer_with(context: str, refusals: Sequence[dict[str, Any]]) -> ConfigPatch:
    """Has proxies answer so: the first that fits.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/local_reply
    """
    return {
        "applyTo": "NETWORK_FILTER",
        "match": {
            "context": context,
            "listener": {"filterChain": {"filter": {"name": CONNECTION_MANAGER}}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {
                "name": CONNECTION_MANAGER,
                "typed_config": {
                    "@type": f"{_TYPES}.filters.network.http_connection_manager.v3."
                    "HttpConnectionManager",
                    "local_reply_config": {"mappers": list(refusals)},
                },
            },
        },
    }


NO_KEYS: Final = refusal(
    f"{NOT_AUTHENTICATED}{{Jwks_remote_fetch_is_failed}}",
    503,
    "keys_unavailable",
    "The access token cannot be verified now, since the keys of its issuer could not be fetched.",
    {"retry-after": "5"},
)
"""For any token, on a proxy that has begun while the issuer was out of reach."""

TOKEN_INVALID: Final = refusal(
    NOT_AUTHENTICATED,
    401,
    "invalid_token",
    "The access token does not count here: %LOCAL_REPLY_BODY%.",
    challenge("invalid_token"),
)
"""For a token that is expired, of another issuer, for another service, or none at all."""
