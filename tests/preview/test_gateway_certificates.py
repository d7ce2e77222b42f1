"""Where the certificate of each of a gateway's hosts comes from."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from voicemesh import (
    CertificateIssuer,
    GatewayHost,
    IssuerKind,
    PublicGateway,
    PublicGatewayArgs,
    TokenIssuer,
)
from voicemesh.testing import Recording, record

LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
HOST = "a.example.com"
CERTIFICATE = "kubernetes:cert-manager.io/v1:Certificate"
SECRET = "kubernetes:core/v1:Secret"
GATEWAY = "kubernetes:networking.istio.io/v1:Gateway"


def recorded(host: GatewayHost) -> Recording:
    args = PublicGatewayArgs(hosts=[host], issuers=[LOGIN])

    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        PublicGateway("public", args, pulumi.ResourceOptions(provider=cluster))

    return record(program)


def served_secrets(recording: Recording) -> set[str]:
    """Names of the Secrets with which the gateway serves HTTPS."""
    servers = recording.one(GATEWAY).inputs["spec"]["servers"]
    return {server["tls"]["credentialName"] for server in servers if server["tls"].get("mode")}


@pytest.mark.parametrize("kind", IssuerKind)
def test_an_issuer_keeps_the_secret_that_the_gateway_serves(kind: IssuerKind) -> None:
    recording = recorded(GatewayHost(HOST, issuer=CertificateIssuer("letsencrypt", kind)))
    certificate = recording.one(CERTIFICATE)
    spec = certificate.inputs["spec"]
    assert spec["dnsNames"] == [HOST]
    assert spec["issuerRef"] == {
        "group": "cert-manager.io",
        "kind": kind.value,
        "name": "letsencrypt",
    }
    assert spec["privateKey"]["rotationPolicy"] == "Always"
    assert served_secrets(recording) == {spec["secretName"]}
    assert certificate.inputs["metadata"]["namespace"] == "istio-ingress"


def test_the_gateway_serves_a_host_once_its_certificate_is_there() -> None:
    recording = recorded(GatewayHost(HOST, issuer=CertificateIssuer("letsencrypt")))
    certificate = recording.one(CERTIFICATE)
    annotations = certificate.inputs["metadata"]["annotations"]
    assert annotations["pulumi.com/waitFor"] == "condition=Ready"
    assert certificate.urn in recording.one(GATEWAY).depends_on


def test_a_secret_that_somebody_keeps_is_served_as_it_is() -> None:
    recording = recorded(GatewayHost(HOST, secret_name="kept-elsewhere"))
    assert recording.of_type(CERTIFICATE) == recording.of_type(SECRET) == []
    assert served_secrets(recording) == {"kept-elsewhere"}


def test_a_certificate_in_pem_becomes_a_secret_whose_key_is_not_in_the_clear() -> None:
    pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    recording = recorded(GatewayHost(HOST, certificate=pem, private_key="-----BEGIN KEY-----"))
    secret = recording.one(SECRET)
    assert served_secrets(recording) == {secret.inputs["metadata"]["name"]}
    assert {"data", "data.tls.key"} & secret.secret_paths
