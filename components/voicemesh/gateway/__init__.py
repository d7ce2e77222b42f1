"""`PublicGateway`: where requests enter the mesh, over TLS."""

from voicemesh.gateway.arguments import PublicGatewayArgs, ServiceType
from voicemesh.gateway.component import PublicGateway
from voicemesh.gateway.hosts import CertificateIssuer, GatewayHost, IssuerKind
from voicemesh.gateway.quota import QuotaUnit, RequestQuota, WhenUnavailable
from voicemesh.gateway.waf import WebApplicationFirewall

__all__ = [
    "CertificateIssuer",
    "GatewayHost",
    "IssuerKind",
    "PublicGateway",
    "PublicGatewayArgs",
    "QuotaUnit",
    "RequestQuota",
    "ServiceType",
    "WebApplicationFirewall",
    "WhenUnavailable",
]
