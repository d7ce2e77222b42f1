"""A stack with a tenant whose voice is scaled by its use of the CPU."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    Autoscaling,
    ComputeSize,
    Scaler,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantQuota,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
)

config = pulumi.Config()
cluster = pulumi.ResourceOptions(
    providers=[kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))]
)
tenant = TenantNamespace(
    "elastic",
    TenantNamespaceArgs(name="elastic", quota=TenantQuota(2, 4, 4, {"nvidia.com/gpu": 3})),
    cluster,
)
variant = VoiceVariant(
    name="stable",
    version=config.require("version"),
    image="localhost/voicemesh/speech-server:0.1.0",
    size=ComputeSize(0.1, 0.75),
    autoscaling=Autoscaling(min_replicas=2, max_replicas=3, cpu_percent=100),
)
TtsVoiceService(
    "tenor", TtsVoiceServiceArgs(tenant.namespace, [variant], scaler=Scaler.CPU), cluster
)
