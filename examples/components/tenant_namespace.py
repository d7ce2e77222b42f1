"""A tenant with two GPUs, whose voices another namespace may call within the mesh."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import TenantNamespace, TenantNamespaceArgs, TenantNetwork, TenantQuota

platform = pulumi.StackReference("acme/voicemesh/prod")

tenant = TenantNamespace(
    "newsroom",
    TenantNamespaceArgs(
        name="newsroom",
        quota=TenantQuota(cpu_cores=12, memory_gib=80, pods=10, gpus={"nvidia.com/gpu": 2}),
        injection_labels=platform.require_output("injectionLabels"),
        network=TenantNetwork(caller_namespaces=["newsroom-web"]),
        administrators=["acme:newsroom-developers"],
    ),
    pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")]),
)

pulumi.export("namespace", tenant.namespace)
