"""Whose tokens count, how proxies come by the issuers' keys, and what a verified token says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.arguments import URL, Faults
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

CONNECTION_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
_JWT_TYPE: Final = "envoy.extensions.filters.http.jwt_authn.v3"
_PAYLOAD: Final = "payload"
_FETCH_TIMEOUT: Final = "5s"
_HTTP_PORT: Final = 80
_HTTPS_PORT: Final = 443
_ADDRESSES: Final = "issuers.internal"
_IN_MESH: Final = (".svc", ".svc.cluster.local")


@dataclass(frozen=True)
class TokenIssuer:
    """Who issues access tokens: any issuer of OpenID Connect, or of JSON Web Tokens.

    https://openid.net/specs/openid-connect-discovery-1_0.html
    """

    issuer: str
    """Name by which its tokens say who issued them: their claim `iss`, to the letter."""

    jwks_uri: str
    """Where its public keys are: `jwks_uri` in its discovery document. Each proxy fetches them, so
    namespaces with voices must be able to reach it. If by https, its certificate must be of an
    authority that the proxies' image trusts."""

    audiences: Sequence[str]
    """Who its tokens must be for: a token needs one of these in its claim `aud`."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes an issuer whose tokens would be anybody's, or whose keys could not be fetched."""
        given = isinstance(self.issuer, str) and bool(self.issuer.strip())
        allowed = "the claim `iss` of its tokens, as in 'https://login.example.com/'"
        faults.require(given, f"{path}.issuer", self.issuer, allowed)
        allowed = "a URL as in 'https://login.example.com/jwks.json'"
        faults.matches(URL, f"{path}.jwks_uri", self.jwks_uri, allowed)
        wanted = len(self.audiences) > 0 and all(self.audiences)
        allowed = "at least one audience: without, tokens for other services would count"
        faults.require(wanted, f"{path}.audiences", self.audiences, allowed)


@dataclass(frozen=True)
class KeySource:
    """A server that publishes keys, as proxies know it.

    Attributes:
        host: its name or address.
        port: where it listens.
        tls: whether it speaks TLS there.
    """

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, issuer: TokenIssuer) -> "KeySource":
        """The server of an issuer's keys."""
        url = urlsplit(issuer.jwks_uri)
        tls = url.scheme == "https"
        return cls(url.hostname or "", url.port or (_HTTPS_PORT if tls else _HTTP_PORT), tls)

    @property
    def is_external(self) -> bool:
        """Whether the mesh does not know it by itself."""
        return not self.host.endswith(_IN_MESH)

    @property
    def is_address(self) -> bool:
        """Whether its host is an IP address."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def mesh_host(self) -> str:
        """Its name within the mesh: its own, or one for its address, since Istio takes no address
        for the name of a host."""
        if not self.is_address:
            return self.host
        return f"{self.host.replace('.', '-').replace(':', '-')}.{_ADDRESSES}"

    @property
    def mesh_port(self) -> int:
        """Its port within the mesh.

        Where proxies speak TLS for whoever fetches keys, it is that of plain HTTP: TLS of pods that
        call the issuer by themselves, at its own port, stays as it is
        (https://istio.io/latest/docs/tasks/traffic-management/egress/egress-tls-origination/).
        """
        return _HTTP_PORT if self.tls and self.is_external else self.port

    @property
    def cluster(self) -> str:
        """Name that istiod gives it in the configuration of proxies."""
        return f"outbound|{self.mesh_port}||{self.mesh_host}"

    @property
    def mesh_address(self) -> str:
        """Host and port by which istiod finds that cluster."""
        return f"{self.mesh_host}:{self.mesh_port}"


def check_issuers(faults: Faults, path: str, issuers: Sequence[TokenIssuer]) -> None:
    """Notes issuers that no proxy could tell apart, besides those that are none."""
    for index, issuer in enumerate(issuers):
        issuer.check(faults, f"{path}[{index}]")
    faults.unique(path, [str(issuer.issuer) for issuer in issuers], "issuer")
    sources = {KeySource.of(issuer) for issuer in issuers if isinstance(issuer.jwks_uri, str)}
    faults.unique(path, [source.host for source in sources], "host of keys by one scheme and port")


def external_sources(issuers: Sequence[TokenIssuer]) -> list[KeySource]:
    """Servers of keys outside the mesh, each once."""
    sources = dict.fromkeys(KeySource.of(issuer) for issuer in issuers)
    return [source for source in sources if source.is_external]


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
        },
    }
