"""Two hosts: one whose certificate cert-manager keeps in the gateway's namespace, and one whose
certificate is in the stack's configuration and which a single tenant may serve. Tenants call them
with tokens of one issuer, 600 times a minute, and one of them more often.
"""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    GatewayHost,
    IstioMesh,
    IstioMeshArgs,
    PublicGateway,
    PublicGatewayArgs,
    RequestQuota,
    TokenIssuer,
)

config = pulumi.Config()
LOGIN = TokenIssuer(
    "https://login.example.com/", "https://login.example.com/.well-known/jwks.json", ["voicemesh"]
)

in_cluster = pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")])

mesh = IstioMesh("mesh", IstioMeshArgs(issuers=[LOGIN]), in_cluster)
gateway = PublicGateway(
    "public-gateway",
    PublicGatewayArgs(
        hosts=[
            GatewayHost("tts.example.com", secret_name="tts-example-com"),
            GatewayHost(
                "newsroom.example.com",
                certificate=config.require("certificate"),
                private_key=config.require_secret("privateKey"),
                namespace="newsroom",
            ),
        ],
        issuers=[LOGIN],
        quota=RequestQuota(600, tenants={"newsroom": 6000}),
        injection_labels=mesh.injection_labels,
        replicas=3,
    ),
    in_cluster,
)

pulumi.export("address", gateway.address)
