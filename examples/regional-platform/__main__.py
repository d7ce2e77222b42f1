"""A whole platform in one region, from the network to a voice, composed by hand."""

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from voicemesh import (
    ClusterAddons,
    ClusterAddonsArgs,
    GatewayHost,
    GpuCluster,
    GpuClusterArgs,
    GpuNodeGroup,
    GpuNodeGroupArgs,
    ImageRegistry,
    ImageRegistryArgs,
    IstioMesh,
    IstioMeshArgs,
    ObjectStorage,
    PublicGateway,
    PublicGatewayArgs,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantNetwork,
    TenantQuota,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceStorage,
    VoiceStorageAccess,
    VoiceStorageAccessArgs,
    VoiceStorageArgs,
    VoiceVariant,
)

NAME = "voicemesh-ireland"
TENANT = "newsroom"
VOICE = "reader"
LOAD_BALANCER = {
    "type": "external",
    "nlb-target-type": "ip",
    "scheme": "internet-facing",
    # Otherwise the gateway would see the load balancer's address in place of the client's.
    "target-group-attributes": "preserve_client_ip.enabled=true",
}
"""What the load balancer controller makes for the gateway.
https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/annotations/"""

config = pulumi.Config()
region = pulumi.Config("aws").require("region")
zones = config.require_object("zones")
host = config.require("host")
login = config.require_object("issuer")
issuers = [TokenIssuer(login["issuer"], login["jwksUri"], login["audiences"])]

# Layer 1: AWS. Nothing here needs Kubernetes.

in_aws = pulumi.ResourceOptions(
    providers=[
        aws.Provider(
            "region",
            region=region,
            default_tags={"tags": {"project": NAME, "environment": pulumi.get_stack()}},
        )
    ]
)

cluster = GpuCluster(
    "cluster",
    GpuClusterArgs(
        cluster_name=NAME,
        availability_zones=zones,
        administrators=[config.require("administrator")],
        public_access_cidrs=config.require_object("publicAccessCidrs"),
    ),
    in_aws,
)
online = GpuNodeGroup(
    "online",
    GpuNodeGroupArgs(
        cluster_name=cluster.cluster_name,
        node_role_arn=cluster.node_role_arn,
        subnets=cluster.private_subnets,
        kubernetes_version=cluster.kubernetes_version,
        availability_zones=zones[:1],
        min_size=1,
        max_size=4,
    ),
    in_aws,
)
registry = ImageRegistry("images", ImageRegistryArgs(name_prefix=NAME), in_aws)
storage = VoiceStorage("voices", VoiceStorageArgs(), in_aws)
access = VoiceStorageAccess(
    "newsroom-reader",
    VoiceStorageAccessArgs(
        cluster_name=cluster.cluster_name,
        namespace=TENANT,
        service_account=VOICE,
        tenant=TENANT,
        bucket_arn=storage.bucket_arn,
        key_arn=storage.key_arn,
    ),
    in_aws,
)

pulumi.export("kubeconfig", cluster.kubeconfig)
pulumi.export("speechServer", registry.urls["speech-server"])
pulumi.export("bucket", storage.bucket)


def make_platform(image: str) -> None:
    """Layers 2 and 3: mesh and gateway on the cluster, a tenant and its voice."""
    in_cluster = pulumi.ResourceOptions(
        providers=[kubernetes.Provider("cluster", kubeconfig=cluster.kubeconfig)]
    )

    addons = ClusterAddons(
        "addons",
        ClusterAddonsArgs(cluster_name=cluster.cluster_name, region=region, vpc_id=cluster.vpc_id),
        in_cluster,
    )
    mesh = IstioMesh("mesh", IstioMeshArgs(issuers=issuers), in_cluster)
    # Whoever uses these labels waits for the nodes, for their GPUs, and for load balancers.
    injection_labels = pulumi.Output.all(
        mesh.injection_labels,
        online.urn,
        addons.gpu_namespace,
        addons.controller_namespace,
    ).apply(lambda resolved: resolved[0])
    gateway = PublicGateway(
        "public-gateway",
        PublicGatewayArgs(
            # cert-manager, or whoever else, keeps the certificate in the gateway's namespace.
            hosts=[GatewayHost(host, secret_name="public-certificate")],
            issuers=issuers,
            injection_labels=injection_labels,
            service_annotations={
                f"service.beta.kubernetes.io/aws-load-balancer-{name}": value
                for name, value in LOAD_BALANCER.items()
            },
        ),
        in_cluster,
    )

    tenant = TenantNamespace(
        TENANT,
        TenantNamespaceArgs(
            name=TENANT,
            quota=TenantQuota(cpu_cores=16, memory_gib=80, pods=10, gpus={"nvidia.com/gpu": 4}),
            injection_labels=injection_labels,
            network=TenantNetwork(gateway_namespace=gateway.namespace),
        ),
        in_cluster,
    )
    voice = TtsVoiceService(
        "newsroom-reader",
        TtsVoiceServiceArgs(
            namespace=tenant.namespace,
            service_name=VOICE,
            hosts=[host],
            gateway_ref=gateway.gateway_ref,
            gateway_principal=gateway.principal,
            issuers=issuers,
            object_storage=ObjectStorage(region=region, role_arn=access.role_arn),
            variants=[VoiceVariant(name="stable", version="1.0.0", image=image, replicas=2)],
        ),
        in_cluster,
    )
    pulumi.export("address", gateway.address)
    pulumi.export("urls", voice.urls)


# There is an image once it has been pushed to the registry above.
if image := config.get("image"):
    make_platform(image)
