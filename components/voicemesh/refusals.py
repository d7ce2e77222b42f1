"""What proxies answer where they let a request go no further, in the form of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from voicemesh.istio.specs import ConfigPatch

NOT_AUTHENTICATED: Final = "jwt_authn_access_denied"
"""How the details of a response begin that the verification of tokens gave.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details"""

NOT_AUTHORIZED: Final = "rbac_access_denied_matched_policy"
"""How those begin that an AuthorizationPolicy gave."""

NO_ROUTE: Final = "route_not_found"

_CONNECTION_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_TYPES: Final = "type.googleapis.com/envoy.extensions"
_CEL: Final = "envoy.access_loggers.extension_filters.cel"


def refusal(
    details: str, status: int, code: str, message: str, challenge: str | None = None
) -> dict[str, Any]:
    """What to answer instead of a proxy's own words.

    Args:
        details: how the details of the response begin.
        status: of the answer.
        code: by which programs tell it from others.
        message: for people, without quotes; `%LOCAL_REPLY_BODY%` stands for the proxy's own words.
        challenge: what WWW-Authenticate says (RFC 6750, section 3); None for nothing.
    """
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    mapper: dict[str, Any] = {
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
    }
    if challenge is not None:
        header = {"key": "www-authenticate", "value": challenge}
        mapper["headers_to_add"] = [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ]
    return mapper


def answer_with(context: str, refusals: Sequence[dict[str, Any]]) -> ConfigPatch:
    """Has proxies answer so: the first that fits.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/local_reply
    """
    return {
        "applyTo": "NETWORK_FILTER",
        "match": {
            "context": context,
            "listener": {"filterChain": {"filter": {"name": _CONNECTION_MANAGER}}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {
                "name": _CONNECTION_MANAGER,
                "typed_config": {
                    "@type": f"{_TYPES}.filters.network.http_connection_manager.v3."
                    "HttpConnectionManager",
                    "local_reply_config": {"mappers": list(refusals)},
                },
            },
        },
    }


TOKEN_INVALID: Final = refusal(
    NOT_AUTHENTICATED,
    401,
    "invalid_token",
    "The access token does not count here: %LOCAL_REPLY_BODY%.",
    'Bearer realm="voicemesh", error="invalid_token"',
)
"""For a token that is expired, of another issuer, for another service, or none at all."""
