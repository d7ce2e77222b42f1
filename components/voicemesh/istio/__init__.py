"""Istio's resources, typed as far as the components use them."""

from voicemesh.istio.resources import (
    DestinationRule,
    Gateway,
    PeerAuthentication,
    VirtualService,
)

__all__ = ["DestinationRule", "Gateway", "PeerAuthentication", "VirtualService"]
