"""Reusable Pulumi components for a governed text-to-speech service.

Names are loaded when they are first used: whoever needs `voicemesh.contract` only, or one
component, does not pay for the providers' SDKs of the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voicemesh.arguments import ArgumentsError
    from voicemesh.charts import ChartSource
    from voicemesh.cluster.addon_arguments import AddonVersions, ClusterAddonsArgs
    from voicemesh.cluster.addons import ClusterAddons
    from voicemesh.cluster.arguments import GpuClusterArgs, NatGateways, SystemNodes
    from voicemesh.cluster.cluster import GpuCluster
    from voicemesh.cluster.node_group import GpuNodeGroup
    from voicemesh.cluster.node_group_arguments import (
        CapacityType,
        GpuNodeGroupArgs,
        ReservedCapacity,
    )
    from voicemesh.gateway import (
        CertificateIssuer,
        GatewayHost,
        IssuerKind,
        PublicGateway,
        PublicGatewayArgs,
        QuotaUnit,
        RequestQuota,
        ServiceType,
        WebApplicationFirewall,
        WhenUnavailable,
    )
    from voicemesh.issuers import TokenIssuer
    from voicemesh.mesh import IstioMesh, IstioMeshArgs, ProxyBuild
    from voicemesh.names import UniqueName, UniqueNameArgs
    from voicemesh.registry import ImageRegistry, ImageRegistryArgs
    from voicemesh.revisions import MeshRevision
    from voicemesh.service.access import VoiceAccess
    from voicemesh.service.arguments import (
        ConnectionLimits,
        Ejection,
        Mirroring,
        TtsVoiceServiceArgs,
        VoiceVariant,
    )
    from voicemesh.service.component import TtsVoiceService
    from voicemesh.service.data import ModelWeights, ObjectStorage, OutputStorage
    from voicemesh.service.scaling import Autoscaling, Scaler
    from voicemesh.sizes import ComputeSize
    from voicemesh.storage.access import VoiceStorageAccess, VoiceStorageAccessArgs
    from voicemesh.storage.bucket import VoiceStorage, VoiceStorageArgs
    from voicemesh.storage.volume import VoiceVolume, VoiceVolumeArgs
    from voicemesh.tenancy import (
        Egress,
        TenantNamespace,
        TenantNamespaceArgs,
        TenantNetwork,
        TenantQuota,
    )
    from voicemesh.waf_provider import WafProvider

__all__ = [
    "AddonVersions",
    "ArgumentsError",
    "Autoscaling",
    "CapacityType",
    "CertificateIssuer",
    "ChartSource",
    "ClusterAddons",
    "ClusterAddonsArgs",
    "ComputeSize",
    "ConnectionLimits",
    "Egress",
    "Ejection",
    "GatewayHost",
    "GpuCluster",
    "GpuClusterArgs",
    "GpuNodeGroup",
    "GpuNodeGroupArgs",
    "ImageRegistry",
    "ImageRegistryArgs",
    "IssuerKind",
    "IstioMesh",
    "IstioMeshArgs",
    "MeshRevision",
    "Mirroring",
    "ModelWeights",
    "NatGateways",
    "ObjectStorage",
    "OutputStorage",
    "ProxyBuild",
    "PublicGateway",
    "PublicGatewayArgs",
    "QuotaUnit",
    "RequestQuota",
    "ReservedCapacity",
    "Scaler",
    "ServiceType",
    "SystemNodes",
    "TenantNamespace",
    "TenantNamespaceArgs",
    "TenantNetwork",
    "TenantQuota",
    "TokenIssuer",
    "TtsVoiceService",
    "TtsVoiceServiceArgs",
    "UniqueName",
    "UniqueNameArgs",
    "VoiceAccess",
    "VoiceStorage",
    "VoiceStorageAccess",
    "VoiceStorageAccessArgs",
    "VoiceStorageArgs",
    "VoiceVariant",
    "VoiceVolume",
    "VoiceVolumeArgs",
    "WafProvider",
    "WebApplicationFirewall",
    "WhenUnavailable",
]

_MODULES = {
    "AddonVersions": "cluster.addon_arguments",
    "ArgumentsError": "arguments",
    "Autoscaling": "service.scaling",
    "CapacityType": "cluster.node_group_arguments",
    "CertificateIssuer": "gateway",
    "ChartSource": "charts",
    "ClusterAddons": "cluster.addons",
    "ClusterAddonsArgs": "cluster.addon_arguments",
    "ComputeSize": "sizes",
    "ConnectionLimits": "service.arguments",
    "Egress": "tenancy",
    "Ejection": "service.arguments",
    "GatewayHost": "gateway",
    "GpuCluster": "cluster.cluster",
    "GpuClusterArgs": "cluster.arguments",
    "GpuNodeGroup": "cluster.node_group",
    "GpuNodeGroupArgs": "cluster.node_group_arguments",
    "ImageRegistry": "registry",
    "ImageRegistryArgs": "registry",
    "IssuerKind": "gateway",
    "IstioMesh": "mesh",
    "IstioMeshArgs": "mesh",
    "MeshRevision": "revisions",
    "Mirroring": "service.arguments",
    "ModelWeights": "service.data",
    "NatGateways": "cluster.arguments",
    "ObjectStorage": "service.data",
    "OutputStorage": "service.data",
    "ProxyBuild": "mesh",
    "PublicGateway": "gateway",
    "PublicGatewayArgs": "gateway",
    "QuotaUnit": "gateway",
    "RequestQuota": "gateway",
    "ReservedCapacity": "cluster.node_group_arguments",
    "Scaler": "service.scaling",
    "ServiceType": "gateway",
    "SystemNodes": "cluster.arguments",
    "TenantNamespace": "tenancy",
    "TenantNamespaceArgs": "tenancy",
    "TenantNetwork": "tenancy",
    "TenantQuota": "tenancy",
    "TokenIssuer": "issuers",
    "TtsVoiceService": "service.component",
    "TtsVoiceServiceArgs": "service.arguments",
    "UniqueName": "names",
    "UniqueNameArgs": "names",
    "VoiceAccess": "service.access",
    "VoiceStorage": "storage.bucket",
    "VoiceStorageAccess": "storage.access",
    "VoiceStorageAccessArgs": "storage.access",
    "VoiceStorageArgs": "storage.bucket",
    "VoiceVariant": "service.arguments",
    "VoiceVolume": "storage.volume",
    "VoiceVolumeArgs": "storage.volume",
    "WafProvider": "waf_provider",
    "WebApplicationFirewall": "gateway",
    "WhenUnavailable": "gateway",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
