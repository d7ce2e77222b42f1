"""The Secrets of a gateway's certificates: made here, kept by cert-manager, or by somebody else."""

from __future__ import annotations

import base64
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh.component import child_options
from voicemesh.gateway.hosts import CertificateIssuer, GatewayHost


def secret_name(gateway: str, host: GatewayHost) -> pulumi.Input[str]:
    """Name of the Secret with a host's certificate."""
    return host.secret_name if host.secret_name is not None else f"{gateway}-{host.name}"


def declare_certificate(
    parent: pulumi.Resource, gateway: str, host: GatewayHost, namespace: pulumi.Input[str]
) -> pulumi.Resource | None:
    """What makes the Secret of a host's certificate; None where somebody else does."""
    name = f"{gateway}-{host.name}"
    if host.issuer is not None:
        return CustomResource(
            name,
            api_version="cert-manager.io/v1",
            kind="Certificate",
            # Until its certificate is there, a host would keep its gateway from any change: Envoy
            # takes the new listener only when it is complete.
            metadata=ObjectMetaArgs(
                name=name,
                namespace=namespace,
                annotations={"pulumi.com/waitFor": "condition=Ready"},
            ),
            spec=certificate_spec(name, host.name, host.issuer),
            opts=child_options(parent),
        )
    if host.certificate is not None:
        return Secret(
            name,
            type="kubernetes.io/tls",
            metadata=ObjectMetaArgs(name=name, namespace=namespace),
            data={
                "tls.crt": pulumi.Output.from_input(host.certificate).apply(_base64),
                "tls.key": pulumi.Output.secret(host.private_key).apply(_base64),
            },
            opts=child_options(parent),
        )
    return None


def certificate_spec(secret: str, host: str, issuer: CertificateIssuer) -> dict[str, Any]:
    """A certificate that has a new key each time it is renewed.

    https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateSpec
    """
    return {
        "secretName": secret,
        "dnsNames": [host],
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind.value, "name": issuer.name},
    }


def _base64(text: Any) -> str:
    return base64.b64encode(str(text).encode()).decode()
