"""Who comes in: whose tokens the gateway takes, and what needs none."""

from collections.abc import Sequence
from typing import Any, Final

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.component import child_options
from voicemesh.identity import keys_ahead, request_authentication
from voicemesh.issuers import TokenIssuer
from voicemesh.istio import AuthorizationPolicy, EnvoyFilter, RequestAuthentication
from voicemesh.istio.specs import AuthorizationPolicySpec, EnvoyFilterSpec, From, Operation
from voicemesh.refusals import (
    NO_KEYS,
    NO_ROUTE,
    NOT_AUTHORIZED,
    TOKEN_INVALID,
    answer_with,
    challenge,
    refusal,
)

OPEN_PATHS: Final = (contract.PAGE_PATH, contract.HEALTH_PATH)
"""What is served without a token."""

_POLICY_SUFFIX: Final = "-token"

REDIRECTING_PORT: Final = "80"
_ASKED_METHOD: Final = "request.headers[access-control-request-method]"


def declare_authentication(
    parent: pulumi.Resource,
    name: str,
    namespace_name: str,
    namespace: pulumi.Input[str],
    issuers: Sequence[TokenIssuer],
) -> list[pulumi.Resource]:
    """Declares what the gateway's pods ask of a request before they look for its route."""
    labels = {"istio": name}

    def metadata(suffix: str) -> ObjectMetaArgs:
        return ObjectMetaArgs(name=f"{name}{suffix}", namespace=namespace)

    options = child_options(parent)
    verified = request_authentication(labels, issuers, forward=True)
    filters = proxy_filters(name, namespace_name, labels, issuers)
    return [
        RequestAuthentication(name, metadata(""), verified, options),
        EnvoyFilter(f"{name}-identity", metadata("-identity"), filters, options),
        AuthorizationPolicy(
            f"{name}{_POLICY_SUFFIX}", metadata(_POLICY_SUFFIX), token_required(labels), options
        ),
    ]


def proxy_filters(
    name: str, namespace: str, labels: dict[str, Any], issuers: Sequence[TokenIssuer]
) -> EnvoyFilterSpec:
    """How the gateway comes by keys, and how it refuses.

    A request without a token is answered 401 (RFC 6750, section 3.1); a policy by itself says 403.
    """
    missing = refusal(
        f"{NOT_AUTHORIZED}[ns[{namespace}]-policy[{name}{_POLICY_SUFFIX}]-",
        401,
        "missing_token",
        "This needs an access token, in the header Authorization: Bearer.",
        challenge(),
    )
    unknown = refusal(NO_ROUTE, 404, "not_found", "There is nothing at this address.")
    refusals = [missing, NO_KEYS, TOKEN_INVALID, unknown]
    return {
        "workloadSelector": {"labels": labels},
        "configPatches": [
            keys_ahead(issuers, forward=True, on_gateway=True),
            answer_with("GATEWAY", refusals),
        ],
    }


def token_required(labels: dict[str, Any]) -> AuthorizationPolicySpec:
    """Refuses requests without a token, except for `OPEN_PATHS` and what browsers ask beforehand.

    Such a question is an OPTIONS request that names the method it asks for
    (https://fetch.spec.whatwg.org/#cors-preflight-request). Plain HTTP is only ever redirected.
    """
    nobody: list[From] = [{"source": {"notRequestPrincipals": ["*"]}}]
    closed: Operation = {"notPaths": OPEN_PATHS, "notPorts": [REDIRECTING_PORT]}
    return {
        "selector": {"matchLabels": labels},
        "action": "DENY",
        "rules": [
            {"from": nobody, "to": [{"operation": {**closed, "notMethods": ["OPTIONS"]}}]},
            {
                "from": nobody,
                "to": [{"operation": {**closed, "methods": ["OPTIONS"]}}],
                "when": [{"key": _ASKED_METHOD, "notValues": ["*"]}],
            },
        ],
    }
