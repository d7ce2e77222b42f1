"""Where the programs of the cluster are."""

from __future__ import annotations

from pathlib import Path

_DEVELOPMENT = Path("/tmp/vm/bin")
_DEVELOPMENT_CNI = Path.home() / ".cache/voicemesh/debian-dev/root/usr/lib/cni"


def tool_path(name: str) -> Path:
    return (_DEVELOPMENT / name).readlink()


def cni_plugin_path(name: str) -> Path:
    return _DEVELOPMENT_CNI / name
