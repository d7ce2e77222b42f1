"""A stack with a tenant and a voice, whose component may have had another name formerly."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    ComputeSize,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantQuota,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
)

config = pulumi.Config()
formerly = config.get("formerly")
provider = kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))
tenant = TenantNamespace(
    "choir",
    TenantNamespaceArgs(name="choir", quota=TenantQuota(2, 2, 4, {"nvidia.com/gpu": 2})),
    pulumi.ResourceOptions(providers=[provider]),
)
variant = VoiceVariant(
    name="stable",
    version="0.1.0",
    image="localhost/voicemesh/speech-server:0.1.0",
    weight=100,
    size=ComputeSize(0.1, 0.75),
)
TtsVoiceService(
    config.require("name"),
    TtsVoiceServiceArgs(tenant.namespace, [variant], service_name="alto"),
    pulumi.ResourceOptions(
        providers=[provider], aliases=[pulumi.Alias(name=formerly)] if formerly else []
    ),
)
