"""The policies of a voice's own proxies: who may call it, and what for.

The gateway finds out who a caller is, and the voice's proxies verify that again: whoever is or
poses as the gateway can do no more than the tokens that it brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.component import child_options
from voicemesh.identity import claim, keys_ahead, request_authentication
from voicemesh.issuers import TokenIssuer
from voicemesh.istio import AuthorizationPolicy, EnvoyFilter, RequestAuthentication
from voicemesh.istio.specs import (
    AuthorizationPolicySpec,
    AuthorizationRule,
    Condition,
    EnvoyFilterSpec,
    From,
)
from voicemesh.refusals import (
    NO_KEYS,
    NOT_AUTHORIZED,
    TOKEN_INVALID,
    answer_with,
    challenge,
    refusal,
)
from voicemesh.service.access import VoiceAccess

OPEN_PATHS: Final = (contract.PAGE_PATH, contract.HEALTH_PATH)
"""What the gateway may ask without a token."""

SPEECH_PATHS: Final = (contract.SPEECH_PATH, contract.SPEECH_STREAM_PATH, contract.TTS_PATH)


def declare_access(
    parent: pulumi.Resource,
    name: str,
    service: str,
    namespace: pulumi.Input[str],
    access: VoiceAccess,
    gateway_principal: pulumi.Input[str] | None,
    issuers: Sequence[TokenIssuer],
) -> list[pulumi.Resource]:
    """Declares who may call a voice.

    Args:
        parent: the voice.
        name: name of all resources in the stack.
        service: name of the voice in the cluster.
        namespace: the tenant's.
        access: who may call.
        gateway_principal: identity of the gateway; None for a voice without hosts.
        issuers: whose tokens the gateway brings.
    """
    labels = {contract.APP_LABEL: service}
    options = child_options(parent)

    def metadata(suffix: str = "") -> ObjectMetaArgs:
        return ObjectMetaArgs(name=f"{service}{suffix}", namespace=namespace, labels=labels)

    policy = authorization_policy(labels, access, gateway_principal)
    declared: list[pulumi.Resource] = [AuthorizationPolicy(name, metadata(), policy, options)]
    if issuers:
        # The token has done its work then: the server has no use for it.
        verified = request_authentication(labels, issuers, forward=False)
        declared.append(RequestAuthentication(name, metadata(), verified, options))
    filters = proxy_filters(labels, issuers)
    declared.append(EnvoyFilter(f"{name}-identity", metadata("-identity"), filters, options))
    return declared


def proxy_filters(labels: dict[str, Any], issuers: Sequence[TokenIssuer]) -> EnvoyFilterSpec:
    """How a voice's proxies come by keys, and how they refuse."""
    refused = refusal(
        NOT_AUTHORIZED,
        403,
        "insufficient_scope",
        "Neither the access token nor the identity of the caller allows this.",
        challenge("insufficient_scope"),
    )
    patches = [answer_with("SIDECAR_INBOUND", [NO_KEYS, TOKEN_INVALID, refused])]
    if issuers:
        patches.append(keys_ahead(issuers, forward=False, on_gateway=False))
    return {"workloadSelector": {"labels": labels}, "configPatches": patches}


def authorization_policy(
    labels: dict[str, Any], access: VoiceAccess, gateway_principal: pulumi.Input[str] | None
) -> AuthorizationPolicySpec:
    """Lets in callers within the mesh, and what the gateway brings with the right token.

    Nothing else: as soon as one policy allows something, what none allows is refused. The kubelet's
    probes and Prometheus ask the proxy's agent, not the proxy.
    """
    rules = [] if gateway_principal is None else _gateway_rules(access, gateway_principal)
    if access.callers:
        rules.append({"from": [{"source": {"principals": list(access.callers)}}]})
    policy: AuthorizationPolicySpec = {"selector": {"matchLabels": labels}, "action": "ALLOW"}
    return {**policy, "rules": rules} if rules else policy


def _gateway_rules(
    access: VoiceAccess, gateway_principal: pulumi.Input[str]
) -> list[AuthorizationRule]:
    gateway: list[From] = [{"source": {"principals": [gateway_principal]}}]
    scoped = [
        (access.speech_scopes, SPEECH_PATHS),
        (access.voices_scopes, _with_below(contract.VOICES_PATH)),
        (access.batch_scopes, _with_below(contract.BATCH_PATH)),
        (access.admin_scopes, _with_below(contract.ADMIN_PATH)),
    ]
    tenants: list[Condition] = []
    if access.tenants:
        tenants.append({"key": claim(contract.TENANT_CLAIM), "values": list(access.tenants)})
    open_rule: AuthorizationRule = {
        "from": gateway,
        "to": [{"operation": {"paths": OPEN_PATHS}}],
    }
    return [
        open_rule,
        *(
            {
                "from": gateway,
                "to": [{"operation": {"paths": paths}}],
                "when": [{"key": claim(contract.SCOPE_CLAIM), "values": list(scopes)}, *tenants],
            }
            for scopes, paths in scoped
            if scopes
        ),
    ]


def _with_below(path: str) -> tuple[str, str]:
    return path, f"{path}/*"
