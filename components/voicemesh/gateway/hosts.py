"""Host names of a gateway, and where the certificate of each comes from."""

from dataclasses import dataclass, field
from enum import StrEnum

import pulumi

from voicemesh.arguments import Faults, is_known


class IssuerKind(StrEnum):
    """Where cert-manager looks for an issuer."""

    CLUSTER_ISSUER = "ClusterIssuer"
    """One for all namespaces."""

    ISSUER = "Issuer"
    """One in the gateway's namespace."""


@dataclass(frozen=True)
class CertificateIssuer:
    """An issuer of cert-manager, which runs in the cluster already.

    The gateway redirects plain HTTP, and has no route for ACME's HTTP-01 challenges: an ACME issuer
    needs a DNS-01 solver (https://cert-manager.io/docs/configuration/acme/dns01/).
    """

    name: pulumi.Input[str]
    """Name of the issuer."""

    kind: IssuerKind = IssuerKind.CLUSTER_ISSUER
    """Whether it serves all namespaces, or is in the gateway's."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes a kind that cert-manager does not have."""
        faults.require(
            isinstance(self.kind, IssuerKind),
            f"{path}.kind",
            self.kind,
            ", ".join(f"IssuerKind.{kind.name}" for kind in IssuerKind),
        )


@dataclass(frozen=True)
class GatewayHost:
    """A host name and its certificate: from an issuer, from a Secret, or in PEM."""

    name: str
    """Full host name, as clients send it in SNI and Host."""

    issuer: CertificateIssuer | None = None
    """Who issues the certificate, and each later one in good time. The host is served once it has
    the first. Conflicts with `secret_name`, and with `certificate` and `private_key`."""

    secret_name: pulumi.Input[str] | None = None
    """A Secret of type kubernetes.io/tls that somebody keeps in the gateway's namespace. Conflicts
    with `issuer`, and with `certificate` and `private_key`."""

    certificate: pulumi.Input[str] | None = None
    """Certificate chain in PEM, the host's own first. Needs `private_key`."""

    private_key: pulumi.Input[str] | None = field(default=None, repr=False)
    """Its private key in PEM; it is kept as a secret."""

    namespace: str = "*"
    """The only namespace whose VirtualServices may serve this host; `*` for any."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes names that are none, and a certificate that is missing or given twice."""
        faults.hostname(f"{path}.name", self.name)
        pair = (self.certificate is not None, self.private_key is not None)
        sources = [self.issuer is not None, self.secret_name is not None, pair[0]]
        faults.require(
            pair[0] is pair[1] and sources.count(True) == 1,
            f"{path}.secret_name",
            self.secret_name if is_known(self.secret_name) else "given",
            "one of issuer, secret_name, and certificate with private_key",
        )
        if self.issuer is not None:
            self.issuer.check(faults, f"{path}.issuer")
        for name in ("certificate", "private_key"):
            pem = getattr(self, name)
            is_pem = not isinstance(pem, str) or pem.lstrip().startswith("-----BEGIN ")
            faults.require(is_pem, f"{path}.{name}", "(not shown)", "PEM text")
