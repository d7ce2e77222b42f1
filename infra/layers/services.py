"""The layer `services`: tenants and their voices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from infra.environment import Environment, arguments
from infra.environment.services import Tenant, Voice
from infra.layers.cluster import EksCluster, Outputs, StoredVoices
from voicemesh import (
    ObjectStorage,
    PublicGateway,
    TenantNamespace,
    TokenIssuer,
    TtsVoiceService,
    VoiceStorageAccess,
    VoiceStorageAccessArgs,
    VoiceVolume,
)


@dataclass(frozen=True)
class Ground:
    """What tenants and voices are made on.

    Attributes:
        injection_labels: labels of namespaces with sidecars; they exist once pods can run.
        mesh_revision: the control plane that their pods follow.
        storage: the bucket, where there is one.
        eks: the cluster, if it is one of EKS: voices then get roles for the bucket.
    """

    injection_labels: pulumi.Output[Mapping[str, str]]
    mesh_revision: pulumi.Output[str]
    gateway: PublicGateway
    storage: StoredVoices | None
    eks: EksCluster | None
    in_kubernetes: pulumi.ResourceOptions
    in_aws: pulumi.ResourceOptions


def make_services(environment: Environment, ground: Ground) -> Outputs:
    """All tenants, and all voices."""
    issuers = arguments.token_issuers(environment.identity)
    tenants = {tenant.name: _tenant(tenant, issuers, ground) for tenant in environment.tenants}
    volumes = {
        tenant.name: _volume(tenant, tenants[tenant.name], ground) for tenant in environment.tenants
    }
    voices = {
        f"{voice.tenant}-{voice.name}": _voice(
            environment, voice, tenants[voice.tenant], volumes[voice.tenant], ground
        )
        for voice in environment.voices
    }
    return {
        "namespaces": [tenant.namespace for tenant in tenants.values()],
        "urls": {name: voice.urls for name, voice in voices.items()},
        "hosts": {name: voice.host for name, voice in voices.items()},
        "versions": {name: voice.versions for name, voice in voices.items()},
    }


def _tenant(tenant: Tenant, issuers: Sequence[TokenIssuer], ground: Ground) -> TenantNamespace:
    labels, gateway_namespace = ground.injection_labels, ground.gateway.namespace
    args = arguments.tenant_args(tenant, issuers, labels, gateway_namespace)
    return TenantNamespace(tenant.name, args, ground.in_kubernetes)


def _volume(tenant: Tenant, namespace: TenantNamespace, ground: Ground) -> VoiceVolume | None:
    if tenant.volume is None:
        return None
    args = arguments.volume_args(tenant.volume, namespace.namespace)
    return VoiceVolume(tenant.name, args, ground.in_kubernetes)


def _voice(
    environment: Environment,
    voice: Voice,
    tenant: TenantNamespace,
    volume: VoiceVolume | None,
    ground: Ground,
) -> TtsVoiceService:
    args = arguments.voice_args(
        voice,
        environment.max_stream_seconds,
        _data(voice, tenant, volume, ground),
        namespace=tenant.namespace,
        issuers=arguments.token_issuers(environment.identity),
        gateway_ref=ground.gateway.gateway_ref,
        gateway_principal=ground.gateway.principal,
        mesh_revision=ground.mesh_revision,
    )
    return TtsVoiceService(f"{voice.tenant}-{voice.name}", args, ground.in_kubernetes)


def _data(
    voice: Voice, tenant: TenantNamespace, volume: VoiceVolume | None, ground: Ground
) -> arguments.VoiceData:
    bucket, storage = arguments.LATER, None
    if ground.storage is not None and arguments.uses_own_bucket(voice):
        bucket = ground.storage.bucket
        if ground.eks is not None and voice.object_storage is None:
            access = _access(voice, tenant, ground.storage, ground.eks, ground.in_aws)
            storage = ObjectStorage(region=ground.eks.region, role_arn=access.role_arn)
    claim_name = volume.claim_name if volume is not None else arguments.LATER
    return arguments.VoiceData(bucket, storage, claim_name)


def _access(
    voice: Voice,
    tenant: TenantNamespace,
    storage: StoredVoices,
    eks: EksCluster,
    options: pulumi.ResourceOptions,
) -> VoiceStorageAccess:
    args = VoiceStorageAccessArgs(
        cluster_name=eks.cluster_name,
        namespace=tenant.namespace,
        # Its name, not the account itself: the pods wait for the role.
        service_account=voice.name,
        tenant=voice.tenant,
        bucket_arn=storage.bucket_arn,
        key_arn=storage.bucket_key_arn,
    )
    return VoiceStorageAccess(f"{voice.tenant}-{voice.name}", args, options)
