"""One class for each kind, with the API version that Istio 1.31 stores and serves.

The provider sends a spec as it is written, and the API server drops fields that it does not know
unless it is asked not to: the types in `voicemesh.istio.specs` catch a misspelt field earlier.
"""

from __future__ import annotations

import copy
from typing import Final

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh.istio.specs import (
    AuthorizationPolicySpec,
    DestinationRuleSpec,
    EnvoyFilterSpec,
    GatewaySpec,
    PeerAuthenticationSpec,
    RequestAuthenticationSpec,
    ServiceEntrySpec,
    VirtualServiceSpec,
)

_NETWORKING: Final = "networking.istio.io/v1"
_NETWORKING_ALPHA: Final = "networking.istio.io/v1alpha3"
"""The only version that has EnvoyFilter."""
_SECURITY: Final = "security.istio.io/v1"
_UNWARNED: Final = {"galley.istio.io/analyze-suppress": "IST0133"}


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


class RequestAuthentication(CustomResource):
    """Whose tokens workloads verify. A request without a token passes."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: RequestAuthenticationSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _SECURITY, "RequestAuthentication", spec, metadata, opts)


class AuthorizationPolicy(CustomResource):
    """Who may do what at workloads."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: AuthorizationPolicySpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _SECURITY, "AuthorizationPolicy", spec, metadata, opts)


class ServiceEntry(CustomResource):
    """A host outside the mesh that its proxies know."""

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: ServiceEntrySpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, _NETWORKING, "ServiceEntry", spec, metadata, opts)


class EnvoyFilter(CustomResource):
    """Changes to the configuration that istiod makes for proxies.

    `istioctl analyze` warns of every one, whatever is in it, that upgrades may break it: the tests
    of those we make stand for that, and analysis is left for what it can find.
    """

    def __init__(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        spec: EnvoyFilterSpec,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        unwarned = copy.copy(metadata)
        unwarned.annotations = _UNWARNED
        if metadata.annotations:
            given = pulumi.Output.from_input(metadata.annotations)
            unwarned.annotations = given.apply(lambda known: {**(known or {}), **_UNWARNED})
        # Without a priority, those of a namespace are applied in the order of their age.
        ordered: EnvoyFilterSpec = {"priority": 10, **spec}
        super().__init__(name, _NETWORKING_ALPHA, "EnvoyFilter", ordered, unwarned, opts)
