"""`PublicGateway`: where requests enter the mesh, over TLS."""

from voicemesh.gateway.arguments import PublicGatewayArgs, ServiceType
from voicemesh.gateway.component import PublicGateway
from voicemesh.gateway.hosts import CertificateIssuer, GatewayHost, IssuerKind

__all__ = [
    "CertificateIssuer",
    "GatewayHost",
    "IssuerKind",
    "PublicGateway",
    "PublicGatewayArgs",
    "ServiceType",
]
