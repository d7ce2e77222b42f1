"""A team's tenant and voice on a platform that another stack owns."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    ComputeSize,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantNetwork,
    TenantQuota,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
)

config = pulumi.Config()
platform = pulumi.StackReference(config.require("platformStack"))
gateway = platform.require_output("gateway")

size = ComputeSize(config.require_float("cpuCores"), config.require_float("memoryGib"))

issuers = [
    TokenIssuer(issuer["issuer"], issuer["jwksUri"], issuer["audiences"])
    for issuer in config.get_object("issuers") or []
]

# The cluster is the one of the kubeconfig: of KUBECONFIG, or else of ~/.kube/config.
in_cluster = pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")])

tenant = TenantNamespace(
    "newsroom",
    TenantNamespaceArgs(
        name="newsroom",
        quota=TenantQuota(cpu_cores=8, memory_gib=40, pods=6, gpus={"nvidia.com/gpu": 2}),
        injection_labels=platform.require_output("injectionLabels"),
        network=TenantNetwork(gateway_namespace=gateway["namespace"]),
    ),
    in_cluster,
)

voice = TtsVoiceService(
    "newsroom-reader",
    TtsVoiceServiceArgs(
        namespace=tenant.namespace,
        service_name="reader",
        hosts=config.get_object("hosts") or [],
        gateway_ref=gateway["ref"],
        gateway_principal=gateway["principal"],
        issuers=issuers,
        variants=[
            VoiceVariant(name="stable", version="1.0.0", image=config.require("image"), size=size),
        ],
    ),
    in_cluster,
)

pulumi.export("urls", voice.urls)
pulumi.export("host", voice.host)
