"""How proxies verify tokens, come by the issuers' keys, and pass on what a token says."""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.issuers import KeySource, TokenIssuer, external_sources
from voicemesh.istio import DestinationRule, ServiceEntry
from voicemesh.istio.specs import (
    ClientTls,
    ConfigPatch,
    DestinationRuleSpec,
    HeaderOperations,
    JwtRule,
    PortNumber,
    RequestAuthenticationSpec,
    ServiceEntrySpec,
)
from voicemesh.refusals import CONNECTION_MANAGER

KEYS_REFRESH_SECONDS: Final = 300
"""How often each proxy fetches an issuer's keys: for this long a withdrawn key may still count, and
a new one not yet."""

KEYS_RETRY_SECONDS: Final = 15
"""How often it tries again while it cannot. (Envoy's own second, by all proxies and each of their
hosts, keeps an issuer from coming back that has been too slow once.)"""

CLAIM_HEADERS: Final = {
    contract.TENANT_HEADER: contract.TENANT_CLAIM,
    contract.TIER_HEADER: contract.TIER_CLAIM,
    contract.SCOPE_HEADER: contract.SCOPE_CLAIM,
    contract.SUBJECT_HEADER: "sub",
}
"""Headers that say who calls, and the claims that they are taken from."""

_JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
_JWT_TYPE: Final = "envoy.extensions.filters.http.jwt_authn.v3"
_PAYLOAD: Final = "payload"
_FETCH_TIMEOUT: Final = "5s"


def declare_sources(
    name: str,
    namespace: pulumi.Input[str],
    issuers: Sequence[TokenIssuer],
    options: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Declares servers of keys outside the mesh, for all its proxies."""
    declared: list[pulumi.Resource] = []
    for source in external_sources(issuers):
        unique = f"{name}-issuer-{source.mesh_host}"
        metadata = ObjectMetaArgs(name=f"issuer-{source.mesh_host}", namespace=namespace)
        declared.append(ServiceEntry(unique, metadata, service_entry(source), options))
        if source.tls:
            declared.append(DestinationRule(unique, metadata, tls_origination(source), options))
    return declared


def service_entry(source: KeySource) -> ServiceEntrySpec:
    """Makes a server of keys known to every proxy."""
    entry: ServiceEntrySpec = {
        "hosts": [source.mesh_host],
        "location": "MESH_EXTERNAL",
        "ports": [{"number": source.mesh_port, "name": "http-keys", "protocol": "HTTP"}],
        "resolution": "DNS",
    }
    if source.tls:
        entry["ports"] = [
            {**entry["ports"][0], "targetPort": source.port},
            {"number": source.port, "name": "tls", "protocol": "TLS"},
        ]
    if source.is_address:
        entry["addresses"] = [source.host]
        entry["resolution"] = "STATIC"
        entry["endpoints"] = [{"address": source.host}]
    return entry


def tls_origination(source: KeySource) -> DestinationRuleSpec:
    """Has proxies speak TLS to a server of keys, and verify that it is the one."""
    tls: ClientTls = {
        "mode": "SIMPLE",
        "caCertificates": "system",
        "subjectAltNames": [source.host],
    }
    if not source.is_address:
        tls["sni"] = source.host
    port: PortNumber = {"number": source.mesh_port}
    return {
        "host": source.mesh_host,
        "trafficPolicy": {"portLevelSettings": [{"port": port, "tls": tls}]},
        "subsets": [],
    }


def request_authentication(
    labels: dict[str, Any], issuers: Sequence[TokenIssuer], forward: bool
) -> RequestAuthenticationSpec:
    """Has the pods with these labels verify tokens; `forward` for them to pass tokens on."""
    return {
        "selector": {"matchLabels": labels},
        "jwtRules": [_jwt_rule(issuer, forward) for issuer in _in_istios_order(issuers)],
    }


def keys_ahead(issuers: Sequence[TokenIssuer], forward: bool, on_gateway: bool) -> ConfigPatch:
    """Has proxies fetch keys ahead of requests, and keep them.

    As istiod writes it, a proxy fetches keys when a request needs them, and again when they are
    five minutes old: that request waits, and while the issuer is out, all are refused. Istio has no
    field for the other way, and what it offers for changing its configuration replaces an issuer as
    a whole, so all is said again that `request_authentication` says. Another RequestAuthentication
    for the same pods would be lost.
    https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/http/jwt_authn/v3/config.proto
    """
    ordered = _in_istios_order(issuers)
    providers = {
        # As istiod names them: pilot/pkg/security/authn/policy_applier.go.
        f"origins-{index}": _provider(issuer, forward, on_gateway)
        for index, issuer in enumerate(ordered)
    }
    typed = {"@type": f"type.googleapis.com/{_JWT_TYPE}.JwtAuthentication", "providers": providers}
    in_manager = {"name": CONNECTION_MANAGER, "subFilter": {"name": _JWT_FILTER}}
    return {
        "applyTo": "HTTP_FILTER",
        "match": {
            "context": "GATEWAY" if on_gateway else "SIDECAR_INBOUND",
            "listener": {"filterChain": {"filter": in_manager}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {"name": _JWT_FILTER, "typed_config": typed},
        },
    }


def forwarded_headers() -> HeaderOperations:
    """What a public route does to headers: whatever a client says of itself gives way to what its
    verified token says, or to nothing."""
    return {
        "request": {
            "remove": list(CLAIM_HEADERS),
            "set": {
                header: f"%DYNAMIC_METADATA({_JWT_FILTER}:{_PAYLOAD}:{claim})%"
                for header, claim in CLAIM_HEADERS.items()
            },
        }
    }


def claim(name: str) -> str:
    """A claim of the verified token, as policies name it."""
    return f"request.auth.claims[{name}]"


def _in_istios_order(issuers: Iterable[TokenIssuer]) -> list[TokenIssuer]:
    return sorted(issuers, key=lambda issuer: issuer.issuer)


def _mesh_uri(issuer: TokenIssuer) -> str:
    """Where the keys are, in the words of the mesh: istiod looks for host and port of it."""
    source = KeySource.of(issuer)
    if not source.is_external:
        return issuer.jwks_uri
    url = urlsplit(issuer.jwks_uri)
    return url._replace(scheme="http", netloc=source.mesh_address).geturl()


def _jwt_rule(issuer: TokenIssuer, forward: bool) -> JwtRule:
    return {
        "issuer": issuer.issuer,
        "jwksUri": _mesh_uri(issuer),
        "audiences": list(issuer.audiences),
        "forwardOriginalToken": forward,
    }


def _provider(issuer: TokenIssuer, forward: bool, on_gateway: bool) -> dict[str, pulumi.Input[Any]]:
    return {
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        "forward": forward,
        "payload_in_metadata": _PAYLOAD,
        "normalize_payload_in_metadata": {
            "space_delimited_claims": ["permission", contract.SCOPE_CLAIM]
        },
        # Routes may ask for claims: at gateways only, as in Istio.
        "clear_route_cache": on_gateway,
        "remote_jwks": {
            "http_uri": {
                "uri": issuer.jwks_uri,
                "cluster": KeySource.of(issuer).cluster,
                "timeout": _FETCH_TIMEOUT,
            },
            "cache_duration": f"{KEYS_REFRESH_SECONDS}s",
            # A listener waits for its first keys, or until they could not be had.
            "async_fetch": {"failed_refetch_duration": f"{KEYS_RETRY_SECONDS}s"},
            # A kept connection that the issuer just closed must not cost those seconds.
            "retry_policy": {
                "num_retries": 2,
                "retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"},
            },
        },
    }
