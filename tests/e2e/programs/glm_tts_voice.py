"""A stack with a tenant whose voice is GLM-TTS, behind the lab's gateway.

torch is not in the image that the embedded environment builds: pods have it, and the engine, from
folders of their node.
"""

from typing import Any, cast

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
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceAccess,
    VoiceVariant,
)

GATEWAY = ("lab-ingress", "lab-gateway")
ISSUER = "http://10.245.0.1:4567"
FOLDERS = {"torch": "/srv/torch", "engine": "/srv/engine"}
"""On the node and in the pod, by the name of a claim."""

config = pulumi.Config()


def with_folders(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
    """Mounts the claims on those folders where the speech server's interpreter finds them."""
    if args.type_ == "kubernetes:apps/v1:Deployment":
        pod: Any = cast(Any, args.props)["spec"].template.spec
        (server,) = pod.containers
        for name, path in FOLDERS.items():
            claim = kubernetes.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=name)
            volume = kubernetes.core.v1.VolumeArgs(name=name, persistent_volume_claim=claim)
            mount = kubernetes.core.v1.VolumeMountArgs(name=name, mount_path=path, read_only=True)
            pod.volumes.append(volume)
            server.volume_mounts.append(mount)
    return pulumi.ResourceTransformationResult(args.props, args.opts)


provider = kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))
cluster = pulumi.ResourceOptions(providers=[provider])
tenant = TenantNamespace(
    "studio",
    TenantNamespaceArgs(
        name="studio",
        quota=TenantQuota(2, 4, 4),
        network=TenantNetwork(
            gateway_namespace=GATEWAY[0],
            egress=[Egress("10.245.0.1/32", [4566, 4567])],
        ),
    ),
    cluster,
)
keys = kubernetes.core.v1.Secret(
    "keys",
    metadata={"name": "storage-keys", "namespace": tenant.namespace},
    string_data={"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "any"},
    opts=pulumi.ResourceOptions(provider=provider),
)
SIZE = {"storage": "8Gi"}
claims = []
for name, folder in FOLDERS.items():
    volume = kubernetes.core.v1.PersistentVolume(
        name,
        metadata={"name": f"studio-{name}"},
        spec=kubernetes.core.v1.PersistentVolumeSpecArgs(
            access_modes=["ReadOnlyMany"],
            capacity=SIZE,
            host_path=kubernetes.core.v1.HostPathVolumeSourceArgs(path=folder, type="Directory"),
            storage_class_name="",
        ),
        opts=pulumi.ResourceOptions(provider=provider),
    )
    claim = kubernetes.core.v1.PersistentVolumeClaim(
        name,
        metadata={"name": name, "namespace": tenant.namespace},
        spec=kubernetes.core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadOnlyMany"],
            resources=kubernetes.core.v1.VolumeResourceRequirementsArgs(requests=SIZE),
            storage_class_name="",
            volume_name=volume.metadata["name"],
        ),
        opts=pulumi.ResourceOptions(provider=provider),
    )
    claims.append(claim)
variant = VoiceVariant(
    name="stable",
    version="0.1.0",
    image="localhost/voicemesh/speech-server:0.1.0",
    size=ComputeSize(0.2, 2),
    gpu_count=0,
    accelerator=None,
    model=ModelWeights(
        config.require("uri"), config.require("sha256"), config.require_float("size_gib")
    ),
    environment={
        "SPEECH_ENGINE": "glm_tts",
        "PYTHONPATH": ":".join(FOLDERS.values()),
    },
)
TtsVoiceService(
    "glm",
    TtsVoiceServiceArgs(
        tenant.namespace,
        [variant],
        hosts=["glm.lab.voicemesh.localhost"],
        gateway_ref="/".join(GATEWAY),
        gateway_principal="cluster.local/ns/{}/sa/{}".format(*GATEWAY),
        issuers=[TokenIssuer(ISSUER, f"{ISSUER}/jwks.json", ["voicemesh"])],
        access=VoiceAccess(tenants=["studio"]),
        node_type=None,
        object_storage=ObjectStorage(
            "us-east-1",
            endpoint_url="http://10.245.0.1:4566",
            credentials_secret=keys.metadata["name"],
        ),
    ),
    pulumi.ResourceOptions(providers=[provider], transformations=[with_folders], depends_on=claims),
)
