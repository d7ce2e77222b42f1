"""Istio's resources, typed as far as the components use them."""

from voicemesh.istio.resources import (
    AuthorizationPolicy,
    DestinationRule,
    EnvoyFilter,
    Gateway,
    PeerAuthentication,
    RequestAuthentication,
    ServiceEntry,
    VirtualService,
)

__all__ = [
    "AuthorizationPolicy",
    "DestinationRule",
    "EnvoyFilter",
    "Gateway",
    "PeerAuthentication",
    "RequestAuthentication",
    "ServiceEntry",
    "VirtualService",
]
