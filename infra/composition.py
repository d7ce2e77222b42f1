"""Which components an environment is made of.

(Not `platform`: the engine runs Python in this folder, where that would hide Python's own module.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.environment import (
    Aws,
    Cluster,
    Environment,
    FaultyEnvironmentError,
    Gateway,
    Host,
    Layer,
    Mesh,
    Storage,
    Tenant,
    Variant,
    Voice,
)
from voicemesh import (
    ChartSource,
    GatewayHost,
    IstioMesh,
    IstioMeshArgs,
    ProxyBuild,
    PublicGateway,
    PublicGatewayArgs,
    ServiceType,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantQuota,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
)

PROJECT_ROOT: Final = Path(__file__).resolve().parents[1]

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Platform:
    """What the services of an environment stand on."""

    mesh: IstioMesh
    gateway: PublicGateway


def build(environment: Environment) -> Outputs:
    """Declares all components of an environment and returns the stack's outputs.

    Raises:
        FaultyEnvironmentError: the kubeconfig cannot be read.
        voicemesh.ArgumentsError: a component refuses its arguments.
    """
    options = pulumi.ResourceOptions(providers=[_kubernetes_provider(environment.cluster)])
    platform, outputs = _platform(environment, options)
    outputs |= _storage(environment.storage, environment.aws)
    if Layer.SERVICES in environment.layers:
        outputs |= _services(environment, platform, options)
    return outputs


def _kubernetes_provider(cluster: Cluster) -> kubernetes.Provider:
    path = PROJECT_ROOT / Path(cluster.kubeconfig).expanduser()
    try:
        content = path.read_text()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FaultyEnvironmentError(
            [f"voicemesh:cluster.kubeconfig: cannot read {path}: {reason}"]
        ) from error
    return kubernetes.Provider(
        "cluster", kubeconfig=pulumi.Output.secret(content), context=cluster.context
    )


def _platform(
    environment: Environment, options: pulumi.ResourceOptions
) -> tuple[Platform, Outputs]:
    charts = _charts(environment.mesh)
    mesh = IstioMesh(
        "mesh", _mesh_args(environment.mesh, charts, environment.max_stream_seconds), options
    )
    gateway = PublicGateway(
        "public-gateway",
        _gateway_args(environment.gateway, charts, mesh, environment.max_stream_seconds),
        options,
    )
    outputs: Outputs = {
        "istioVersion": mesh.version,
        "gateway": {
            "ref": gateway.gateway_ref,
            "namespace": gateway.namespace,
            "principal": gateway.principal,
            "address": gateway.address,
        },
    }
    return Platform(mesh, gateway), outputs


def _charts(mesh: Mesh) -> ChartSource:
    if mesh.chart_directory is not None:
        return ChartSource(directory=str(PROJECT_ROOT / mesh.chart_directory))
    return ChartSource(repository=mesh.chart_repository, version=mesh.chart_version)


def _mesh_args(mesh: Mesh, charts: ChartSource, max_stream_seconds: int) -> IstioMeshArgs:
    sizes = {name: size.compute for name, size in mesh.given("istiod", "cni").items() if size}
    further: dict[str, Any] = {**mesh.given("image_hub", "image_tag"), **sizes}
    return IstioMeshArgs(
        charts=charts,
        proxy_build=ProxyBuild(mesh.proxy_build),
        istiod_replicas=mesh.istiod_replicas,
        sidecar=mesh.sidecar_size,
        max_stream_seconds=max_stream_seconds,
        **further,
    )


def _gateway_args(
    gateway: Gateway, charts: ChartSource, mesh: IstioMesh, max_stream_seconds: int
) -> PublicGatewayArgs:
    size: dict[str, Any] = {"size": gateway.size.compute} if gateway.size else {}
    return PublicGatewayArgs(
        hosts=[_gateway_host(host) for host in gateway.hosts],
        charts=charts,
        injection_labels=mesh.injection_labels,
        service_type=ServiceType(gateway.service_type),
        http_node_port=gateway.http_node_port,
        https_node_port=gateway.https_node_port,
        service_annotations=gateway.service_annotations,
        replicas=gateway.replicas,
        max_stream_seconds=max_stream_seconds,
        **size,
    )


def _gateway_host(host: Host) -> GatewayHost:
    key = host.private_key
    return GatewayHost(
        name=host.name,
        secret_name=host.secret_name,
        certificate=host.certificate,
        private_key=pulumi.Output.secret(key.get_secret_value()) if key else None,
        namespace=host.tenant,
    )


def _storage(storage: Storage | None, account: Aws | None) -> Outputs:
    if storage is None or account is None:
        return {}
    # Only an environment with storage pays for loading the AWS SDK.
    from voicemesh import VoiceStorage, VoiceStorageArgs

    made = VoiceStorage(
        "voices",
        VoiceStorageArgs(
            bucket_name=storage.bucket,
            output_days=storage.output_days,
            deletion_protection=storage.deletion_protection,
        ),
        pulumi.ResourceOptions(providers=[_aws_provider(account)]),
    )
    return {"bucket": made.bucket, "bucketKeyArn": made.key_arn}


def _aws_provider(account: Aws) -> pulumi.ProviderResource:
    import pulumi_aws as aws

    keys: dict[str, Any] = {
        name: pulumi.Output.secret(value.get_secret_value())
        for name, value in account.given("access_key", "secret_key").items()
        if value is not None
    }
    if account.endpoint is None:
        return aws.Provider("aws", region=account.region, **keys)
    endpoints = aws.ProviderEndpointArgs(s3=account.endpoint, kms=account.endpoint)
    return aws.Provider(
        "aws",
        region=account.region,
        endpoints=[endpoints],
        s3_use_path_style=True,
        skip_credentials_validation=True,
        skip_metadata_api_check=True,
        skip_requesting_account_id=True,
        **keys,
    )


def _services(
    environment: Environment, platform: Platform, options: pulumi.ResourceOptions
) -> Outputs:
    tenants = {
        tenant.name: TenantNamespace(tenant.name, _tenant_args(tenant, platform.mesh), options)
        for tenant in environment.tenants
    }
    voices = {
        f"{voice.tenant}-{voice.name}": TtsVoiceService(
            f"{voice.tenant}-{voice.name}",
            _voice_args(
                voice, tenants[voice.tenant], platform.gateway, environment.max_stream_seconds
            ),
            options,
        )
        for voice in environment.voices
    }
    return {
        "namespaces": [tenant.namespace for tenant in tenants.values()],
        "urls": {name: voice.urls for name, voice in voices.items()},
        "hosts": {name: voice.host for name, voice in voices.items()},
        "versions": {name: voice.versions for name, voice in voices.items()},
    }


def _tenant_args(tenant: Tenant, mesh: IstioMesh) -> TenantNamespaceArgs:
    quota = tenant.quota
    return TenantNamespaceArgs(
        name=tenant.name,
        quota=TenantQuota(quota.cpu_cores, quota.memory_gib, quota.pods, quota.gpus),
        injection_labels=mesh.injection_labels,
    )


def _voice_args(
    voice: Voice, tenant: TenantNamespace, gateway: PublicGateway, max_stream_seconds: int
) -> TtsVoiceServiceArgs:
    return TtsVoiceServiceArgs(
        namespace=tenant.namespace,
        variants=[_variant(variant) for variant in voice.variants],
        service_name=voice.name,
        hosts=voice.hosts,
        gateway_ref=gateway.gateway_ref,
        node_type=voice.node_type,
        max_stream_seconds=max_stream_seconds,
        startup_seconds=voice.startup_seconds,
        image_pull_seconds=voice.image_pull_seconds,
    )


def _variant(variant: Variant) -> VoiceVariant:
    return VoiceVariant(
        name=variant.name,
        version=variant.version,
        image=variant.image,
        weight=variant.weight,
        replicas=variant.replicas,
        size=variant.size.compute,
        accelerator=variant.accelerator,
        gpu_count=variant.gpu_count,
        gpu_resource=variant.gpu_resource,
        environment=variant.environment,
    )
