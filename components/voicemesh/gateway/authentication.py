"""Who comes in: whose tokens the gateway takes, and what needs none."""

from collections.abc import Sequence
from typing import Any, Final

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.component import child_options
from voicemesh.identity import TokenIssuer, keys_ahead, request_authentication
from voicemesh.istio import AuthorizationPolicy, EnvoyFilter, RequestAuthentication
from voicemesh.istio.specs import AuthorizationPolicySpec, From, Operation

OPEN_PATHS: Final = (contract.PAGE_PATH, contract.HEALTH_PATH)
"""What is served without a token."""

REDIRECTING_PORT: Final = "80"
_ASKED_METHOD: Final = "request.headers[access-control-request-method]"


def declare_authentication(
    parent: pulumi.Resource,
    name: str,
    namespace: pulumi.Input[str],
    labels: dict[str, Any],
    issuers: Sequence[TokenIssuer],
) -> list[pulumi.Resource]:
    """Declares what the gateway's pods ask of a request before they look for its route."""
    metadata = ObjectMetaArgs(name=name, namespace=namespace)
    options = child_options(parent)
    return [
        RequestAuthentication(
            name, metadata, request_authentication(labels, issuers, forward=True), options
        ),
        EnvoyFilter(
            f"{name}-keys",
            ObjectMetaArgs(name=f"{name}-keys", namespace=namespace),
            keys_ahead(labels, issuers, forward=True, on_gateway=True),
            options,
        ),
        AuthorizationPolicy(
            f"{name}-token",
            ObjectMetaArgs(name=f"{name}-token", namespace=namespace),
            token_required(labels),
            options,
        ),
    ]


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
