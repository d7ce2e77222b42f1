"""Reusable Pulumi components for a governed text-to-speech service.

Names are loaded when they are first used: whoever needs `voicemesh.contract` only, or one
component, does not pay for the providers' SDKs of the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voicemesh.arguments import ArgumentsError
    from voicemesh.gateway import GatewayHost, PublicGateway, PublicGatewayArgs, ServiceType
    from voicemesh.mesh import ChartSource, IstioMesh, IstioMeshArgs, ProxyBuild
    from voicemesh.registry import ImageRegistry, ImageRegistryArgs
    from voicemesh.service.arguments import ConnectionLimits, TtsVoiceServiceArgs, VoiceVariant
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

__all__ = [
    "ArgumentsError",
    "Autoscaling",
    "ChartSource",
    "ComputeSize",
    "ConnectionLimits",
    "Egress",
    "GatewayHost",
    "ImageRegistry",
    "ImageRegistryArgs",
    "IstioMesh",
    "IstioMeshArgs",
    "ModelWeights",
    "ObjectStorage",
    "OutputStorage",
    "ProxyBuild",
    "PublicGateway",
    "PublicGatewayArgs",
    "Scaler",
    "ServiceType",
    "TenantNamespace",
    "TenantNamespaceArgs",
    "TenantNetwork",
    "TenantQuota",
    "TtsVoiceService",
    "TtsVoiceServiceArgs",
    "VoiceStorage",
    "VoiceStorageAccess",
    "VoiceStorageAccessArgs",
    "VoiceStorageArgs",
    "VoiceVariant",
    "VoiceVolume",
    "VoiceVolumeArgs",
]

_MODULES = {
    "ArgumentsError": "arguments",
    "Autoscaling": "service.scaling",
    "ChartSource": "mesh",
    "ComputeSize": "sizes",
    "ConnectionLimits": "service.arguments",
    "Egress": "tenancy",
    "GatewayHost": "gateway",
    "ImageRegistry": "registry",
    "ImageRegistryArgs": "registry",
    "IstioMesh": "mesh",
    "IstioMeshArgs": "mesh",
    "ModelWeights": "service.data",
    "ObjectStorage": "service.data",
    "OutputStorage": "service.data",
    "ProxyBuild": "mesh",
    "PublicGateway": "gateway",
    "PublicGatewayArgs": "gateway",
    "Scaler": "service.scaling",
    "ServiceType": "gateway",
    "TenantNamespace": "tenancy",
    "TenantNamespaceArgs": "tenancy",
    "TenantNetwork": "tenancy",
    "TenantQuota": "tenancy",
    "TtsVoiceService": "service.component",
    "TtsVoiceServiceArgs": "service.arguments",
    "VoiceStorage": "storage.bucket",
    "VoiceStorageAccess": "storage.access",
    "VoiceStorageAccessArgs": "storage.access",
    "VoiceStorageArgs": "storage.bucket",
    "VoiceVariant": "service.arguments",
    "VoiceVolume": "storage.volume",
    "VoiceVolumeArgs": "storage.volume",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
