"""A voice with a new version under trial: nine of ten requests go to the old one, which has as many
pods as the load asks for. The weights of both are fetched from object storage. One tenant may call
it through the gateway, and one workload of the mesh without a token.
"""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    Autoscaling,
    ModelWeights,
    ObjectStorage,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceAccess,
    VoiceVariant,
)

LOGIN = TokenIssuer(
    "https://login.example.com/", "https://login.example.com/.well-known/jwks.json", ["voicemesh"]
)
platform = pulumi.StackReference("acme/voicemesh/prod")
gateway = platform.require_output("gateway")
IMAGE = "registry.example.com/speech-server"

voice = TtsVoiceService(
    "newsroom-reader",
    TtsVoiceServiceArgs(
        namespace="newsroom",
        service_name="reader",
        hosts=["newsroom.example.com"],
        gateway_ref=gateway["ref"],
        gateway_principal=gateway["principal"],
        issuers=[LOGIN],
        access=VoiceAccess(tenants=["newsroom"], callers=["cluster.local/ns/newsroom/sa/editor"]),
        object_storage=ObjectStorage(region="eu-central-1"),
        variants=[
            VoiceVariant(
                name="stable",
                version="1.4.2",
                image=f"{IMAGE}:1.4.2",
                weight=90,
                autoscaling=Autoscaling(min_replicas=2, max_replicas=6),
                model=ModelWeights("s3://acme-voices/models/glm-tts/1.4/", "0" * 64, 12.5),
            ),
            VoiceVariant(
                name="canary",
                version="1.5.0",
                image=f"{IMAGE}:1.5.0",
                weight=10,
                model=ModelWeights("s3://acme-voices/models/glm-tts/1.5/", "1" * 64, 12.5),
            ),
        ],
    ),
    pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")]),
)

pulumi.export("urls", voice.urls)
