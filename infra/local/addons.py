"""What a cluster has besides its control plane: DNS, metrics, volumes, advertised GPUs."""

from __future__ import annotations

from infra.local.control_plane import Credentials
from infra.local.kube import KubeApi


def ensure_addons(api: KubeApi, credentials: Credentials) -> None:
    pass
