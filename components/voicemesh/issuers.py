"""Whose tokens count: what gateways, voices and the mesh are told of issuers."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from voicemesh.arguments import URL, Faults

_HTTP_PORT: Final = 80
_HTTPS_PORT: Final = 443
_ADDRESSES: Final = "issuers.internal"
_IN_MESH: Final = ".svc.cluster.local"


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
    with_url = [it for it in issuers if isinstance(it.jwks_uri, str) and URL.fullmatch(it.jwks_uri)]
    sources = {KeySource.of(issuer) for issuer in with_url}
    faults.unique(path, [source.host for source in sources], "host of keys by one scheme and port")


def external_sources(issuers: Sequence[TokenIssuer]) -> list[KeySource]:
    """Servers of keys outside the mesh, each once."""
    sources = dict.fromkeys(KeySource.of(issuer) for issuer in issuers)
    return [source for source in sources if source.is_external]
