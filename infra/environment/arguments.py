"""The arguments of the components, as a configuration says them.

What only the running program knows (names of namespaces that exist, IDs of subnets) comes in beside
the configuration. Before that, `LATER` stands in for it, so that a configuration can be checked by
the components' own arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args

import pulumi
from pydantic import SecretStr

from infra.environment.cluster import Eks, NodeGroup, Registry, Storage
from infra.environment.identity import Identity
from infra.environment.mesh import Addons, Charts, Gateway, Mesh, Waf
from infra.environment.section import Section
from infra.environment.services import Model, Network, Tenant, Variant, Voice, Volume
from voicemesh import (
    AddonVersions,
    ChartSource,
    ClusterAddonsArgs,
    Egress,
    GatewayHost,
    GpuClusterArgs,
    GpuNodeGroupArgs,
    IstioMeshArgs,
    MeshRevision,
    ModelWeights,
    ObjectStorage,
    OutputStorage,
    PublicGatewayArgs,
    TenantNamespaceArgs,
    TenantNetwork,
    TokenIssuer,
    TtsVoiceServiceArgs,
    VoiceVariant,
    VoiceVolumeArgs,
    WafProvider,
)
from voicemesh.issuers import KeySource

if TYPE_CHECKING:
    # Only an environment that uses AWS pays for loading its SDK.
    from voicemesh import ImageRegistryArgs, VoiceStorageArgs

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
CLAIM_NAME: Final = "voices"
"""Name of the claim for a tenant's shared file system, in the tenant's namespace."""

T = TypeVar("T")


class _Later:
    """An input of which nothing is known yet."""

    def __await__(self) -> Any:
        raise RuntimeError("stands in for an input; nothing can be made of it")


LATER: Final[Any] = _Later()
ANY_ISSUERS: Final = (TokenIssuer("https://any", "https://any/keys", ["any"]),)
"""Stands in for the issuers of tokens, where others are what is checked."""


def made(kind: Callable[..., T], section: Section, **further: Any) -> T:
    """A component's arguments, or a part of them, from a section with the same words.

    For what the section leaves out, the defaults of `kind` hold. `further` comes beside it, or in
    its place.

    Raises:
        voicemesh.ArgumentsError: with all that the component refuses.
    """
    hints = {field.name: field.type for field in fields(cast(Any, kind))}
    given = {
        name: _converted(hints[name], getattr(section, name))
        for name in section.model_fields_set
        if name in hints and name not in further
    }
    return kind(**given, **further)


def _converted(hint: Any, value: Any) -> Any:
    """A value of a section as the field with this annotation takes it."""
    if isinstance(value, Section):
        return made(_within(hint, is_dataclass), value)
    if isinstance(value, tuple):
        return [_converted(hint, entry) for entry in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    choice = _within(hint, lambda kind: isinstance(kind, type) and issubclass(kind, StrEnum))
    return choice(value) if choice is not None and value is not None else value


def _within(hint: Any, wanted: Any) -> Any:
    if wanted(hint):
        return hint
    return next(filter(None, (_within(part, wanted) for part in get_args(hint))), None)


def cluster_args(eks: Eks, cluster_name: str) -> GpuClusterArgs:
    """Of the cluster that the stack makes."""
    return made(GpuClusterArgs, eks, cluster_name=cluster_name)


def planned_node_group_args(eks: Eks, group: NodeGroup) -> GpuNodeGroupArgs:
    """Of one group of nodes with GPUs, before there is a cluster."""
    subnets: Any = dict.fromkeys(eks.availability_zones, LATER)
    return node_group_args(group, subnets, LATER, LATER, LATER)


def node_group_args(
    group: NodeGroup,
    subnets: Mapping[str, pulumi.Input[str]],
    cluster_name: pulumi.Input[str],
    node_role_arn: pulumi.Input[str],
    kubernetes_version: pulumi.Input[str],
) -> GpuNodeGroupArgs:
    """Of one group of nodes with GPUs."""
    return made(
        GpuNodeGroupArgs,
        group,
        subnets=subnets,
        cluster_name=cluster_name,
        node_role_arn=node_role_arn,
        kubernetes_version=kubernetes_version,
    )


def registry_args(registry: Registry, name_prefix: str) -> ImageRegistryArgs:
    """Of the image registry."""
    from voicemesh import ImageRegistryArgs

    return made(ImageRegistryArgs, registry, name_prefix=name_prefix)


def storage_args(storage: Storage, bucket_name: pulumi.Input[str]) -> VoiceStorageArgs:
    """Of the bucket."""
    from voicemesh import VoiceStorageArgs

    return made(VoiceStorageArgs, storage, bucket_name=bucket_name)


def addons_args(
    addons: Addons | None,
    cluster_name: pulumi.Input[str] = LATER,
    region: pulumi.Input[str] = LATER,
    vpc_id: pulumi.Input[str] = LATER,
) -> ClusterAddonsArgs:
    """Of what an EKS cluster gets inside Kubernetes."""
    further = {"versions": made(AddonVersions, addons.versions)} if addons else {}
    return ClusterAddonsArgs(cluster_name=cluster_name, region=region, vpc_id=vpc_id, **further)


def chart_source(mesh: Mesh) -> ChartSource:
    """Where the charts of mesh and gateway come from."""
    return _chart_source(mesh.charts) or ChartSource()


def _chart_source(charts: Charts | None) -> ChartSource | None:
    if charts is None:
        return None
    absolute = str(PROJECT_ROOT / charts.directory) if charts.directory is not None else None
    return made(ChartSource, charts, directory=absolute)


def token_issuers(identity: Identity | None) -> list[TokenIssuer]:
    """Whose tokens count."""
    return [made(TokenIssuer, issuer) for issuer in identity.issuers] if identity else []


def mesh_args(
    mesh: Mesh,
    max_stream_seconds: int,
    issuers: Sequence[TokenIssuer] = ANY_ISSUERS,
    gateway: Gateway | None = None,
) -> IstioMeshArgs:
    """Of Istio, whose proxies have to know the firewall of the gateway."""
    waf = gateway.waf if gateway is not None else None
    return made(
        IstioMeshArgs,
        mesh,
        charts=chart_source(mesh),
        revisions=[
            made(MeshRevision, revision, charts=_chart_source(revision.charts))
            for revision in mesh.revisions or ()
        ],
        wafs=[waf_provider(waf)] if waf is not None else [],
        issuers=issuers,
        max_stream_seconds=max_stream_seconds,
    )


def waf_provider(waf: Waf) -> WafProvider:
    """Of the firewall, as the mesh sees it."""
    return made(WafProvider, waf)


def gateway_args(
    gateway: Gateway,
    charts: ChartSource,
    max_stream_seconds: int,
    issuers: Sequence[TokenIssuer] = ANY_ISSUERS,
    injection_labels: pulumi.Input[Mapping[str, str]] = LATER,
    mesh_revision: pulumi.Input[str] = LATER,
) -> PublicGatewayArgs:
    """Of the public gateway."""
    return made(
        PublicGatewayArgs,
        gateway,
        hosts=[made(GatewayHost, host, namespace=host.tenant) for host in gateway.hosts],
        issuers=issuers,
        charts=charts,
        injection_labels=injection_labels,
        mesh_revision=mesh_revision,
        max_stream_seconds=max_stream_seconds,
    )


def tenant_args(
    tenant: Tenant,
    issuers: Sequence[TokenIssuer] = ANY_ISSUERS,
    injection_labels: pulumi.Input[Mapping[str, str]] = LATER,
    gateway_namespace: pulumi.Input[str] = LATER,
) -> TenantNamespaceArgs:
    """Of a tenant's namespace, whose proxies reach the issuers that are named by address."""
    network = tenant.network or Network()
    egress = [made(Egress, entry) for entry in network.egress or ()]
    keys = [Egress(f"{address}/32", [port]) for address, port in addresses_of_keys(issuers)]
    return made(
        TenantNamespaceArgs,
        tenant,
        network=made(
            TenantNetwork,
            network,
            gateway_namespace=gateway_namespace,
            egress=[*egress, *(entry for entry in keys if entry not in egress)],
        ),
        injection_labels=injection_labels,
    )


def addresses_of_keys(issuers: Sequence[TokenIssuer]) -> list[tuple[str, int]]:
    """Addresses and ports of the issuers' keys, as far as they are no names."""
    sources = dict.fromkeys(KeySource.of(issuer) for issuer in issuers)
    return [(source.host, source.port) for source in sources if source.is_address]


def volume_args(volume: Volume, namespace: pulumi.Input[str] = LATER) -> VoiceVolumeArgs:
    """Of a tenant's shared file system."""
    return made(VoiceVolumeArgs, volume, namespace=namespace, claim_name=CLAIM_NAME)


@dataclass(frozen=True)
class VoiceData:
    """Where a voice's weights come from and its audio goes, as far as the environment provides."""

    bucket: pulumi.Input[str]
    object_storage: ObjectStorage | None
    claim_name: pulumi.Input[str]


def voice_args(
    voice: Voice,
    max_stream_seconds: int,
    data: VoiceData,
    namespace: pulumi.Input[str] = LATER,
    issuers: Sequence[TokenIssuer] = ANY_ISSUERS,
    gateway_ref: pulumi.Input[str] = LATER,
    gateway_principal: pulumi.Input[str] = LATER,
    mesh_revision: pulumi.Input[str] = LATER,
) -> TtsVoiceServiceArgs:
    """Of a voice."""
    own_storage = voice.object_storage
    return made(
        TtsVoiceServiceArgs,
        voice,
        namespace=namespace,
        service_name=voice.name,
        variants=[_variant(variant, data.bucket) for variant in voice.variants],
        issuers=issuers,
        gateway_ref=gateway_ref,
        gateway_principal=gateway_principal,
        mesh_revision=mesh_revision,
        max_stream_seconds=max_stream_seconds,
        object_storage=made(ObjectStorage, own_storage) if own_storage else data.object_storage,
        outputs=_outputs(voice, data),
    )


def _variant(variant: Variant, bucket: pulumi.Input[str]) -> VoiceVariant:
    model = _weights(variant.model, bucket) if variant.model else None
    return made(VoiceVariant, variant, model=model)


def _weights(model: Model, bucket: pulumi.Input[str]) -> ModelWeights:
    if is_absolute(model):
        return made(ModelWeights, model)
    uri = LATER if bucket is LATER else pulumi.Output.concat("s3://", bucket, "/", model.uri)
    return made(ModelWeights, model, uri=uri)


def is_absolute(model: Model) -> bool:
    """Whether a model's URI names its bucket; otherwise the environment's own is meant."""
    return "://" in model.uri


def _outputs(voice: Voice, data: VoiceData) -> OutputStorage | None:
    if voice.outputs == "bucket":
        return OutputStorage(bucket=data.bucket)
    if voice.outputs == "volume":
        return OutputStorage(claim_name=data.claim_name)
    return None


def uses_own_bucket(voice: Voice) -> bool:
    """Whether a voice's pods have to reach the environment's own bucket."""
    models = [variant.model for variant in voice.variants if variant.model is not None]
    return voice.outputs == "bucket" or any(not is_absolute(model) for model in models)
