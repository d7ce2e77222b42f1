"""A stack with a tenant whose voice has weights in the environment's S3 server."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    ComputeSize,
    Egress,
    ModelWeights,
    ObjectStorage,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantNetwork,
    TenantQuota,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
)

config = pulumi.Config()
provider = kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))
cluster = pulumi.ResourceOptions(providers=[provider])
tenant = TenantNamespace(
    "weighty",
    TenantNamespaceArgs(
        name="weighty",
        quota=TenantQuota(2, 2, 4, {"nvidia.com/gpu": 1}),
        network=TenantNetwork(egress=[Egress(config.require("storage_cidr"), [4566])]),
    ),
    cluster,
)
keys = kubernetes.core.v1.Secret(
    "keys",
    metadata={"name": "storage-keys", "namespace": tenant.namespace},
    string_data={"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "any"},
    opts=pulumi.ResourceOptions(provider=provider),
)
variant = VoiceVariant(
    name="stable",
    version="0.1.0",
    image="localhost/voicemesh/speech-server:0.1.0",
    size=ComputeSize(0.1, 0.75),
    model=ModelWeights(config.require("uri"), config.require("sha256"), size_gib=0.01),
)
voice = TtsVoiceService(
    "alto",
    TtsVoiceServiceArgs(
        tenant.namespace,
        [variant],
        object_storage=ObjectStorage(
            "us-east-1",
            endpoint_url=config.require("endpoint"),
            credentials_secret=keys.metadata["name"],
        ),
    ),
    cluster,
)
pulumi.export("account", voice.service_account)
