"""One class for each kind, with the API version that Istio 1.31 stores and serves.

The provider sends a spec as it is written, and the API server drops fields that it does not know
unless it is asked not to: the types in `voicemesh.istio.specs` catch a misspelt field earlier.
"""

from __future__ import annotations

from typing import Final

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh.istio.specs import (
    DestinationRuleSpec,
    GatewaySpec,
    PeerAuthenticationSpec,
    VirtualServiceSpec,
)

_NETWORKING: Final = "networking.istio.io/v1"
_SECURITY: Final = "security.istio.io/v1"


class Gateway(CustomResource):
    """Ports, hosts and certificates of a gateway's proxies."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: GatewaySpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _NETWORKING, "Gateway", spec, metadata, opts)


class VirtualService(CustomResource):
    """Which requests for which hosts go to which subsets."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: VirtualServiceSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _NETWORKING, "VirtualService", spec, metadata, opts)


class DestinationRule(CustomResource):
    """Subsets of a service's pods, and how proxies balance, limit and eject them."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: DestinationRuleSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _NETWORKING, "DestinationRule", spec, metadata, opts)


class PeerAuthentication(CustomResource):
    """Whether workloads accept anything but mutual TLS."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: PeerAuthenticationSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _SECURITY, "PeerAuthentication", spec, metadata, opts)
