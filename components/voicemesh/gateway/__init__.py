"""`PublicGateway`: where requests enter the mesh, over TLS."""

from voicemesh.gateway.arguments import GatewayHost, PublicGatewayArgs, ServiceType
from voicemesh.gateway.component import PublicGateway

__all__ = ["GatewayHost", "PublicGateway", "PublicGatewayArgs", "ServiceType"]
