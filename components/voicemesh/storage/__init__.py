"""Where models, reference voices and the audio that is made are kept, and who may read them.

Names are loaded when they are first used: a volume does not pay for loading the AWS SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from voicemesh.contract import MODELS_PREFIX, OUTPUTS_PREFIX, QUALITY_PREFIX, VOICES_PREFIX

if TYPE_CHECKING:
    from voicemesh.storage.access import VoiceStorageAccess, VoiceStorageAccessArgs
    from voicemesh.storage.bucket import VoiceStorage, VoiceStorageArgs
    from voicemesh.storage.volume import VoiceVolume, VoiceVolumeArgs

__all__ = [
    "MODELS_PREFIX",
    "OUTPUTS_PREFIX",
    "QUALITY_PREFIX",
    "VOICES_PREFIX",
    "VoiceStorage",
    "VoiceStorageAccess",
    "VoiceStorageAccessArgs",
    "VoiceStorageArgs",
    "VoiceVolume",
    "VoiceVolumeArgs",
]

_MODULES = {
    "VoiceStorage": "bucket",
    "VoiceStorageAccess": "access",
    "VoiceStorageAccessArgs": "access",
    "VoiceStorageArgs": "bucket",
    "VoiceVolume": "volume",
    "VoiceVolumeArgs": "volume",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
