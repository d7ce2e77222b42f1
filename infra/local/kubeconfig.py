"""Kubeconfig files: how a client finds the API server and identifies itself."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from infra.local.certificates import write_private


def write_kubeconfig(
    path: Path, server: str, authority: Path, certificate: Path, key: Path
) -> None:
    """Writes a kubeconfig that carries its certificates, readable by its owner only.

    Args:
        path: the file to write.
        server: URL of the API server.
        authority: PEM file of the authority that signed the server's certificate.
        certificate: PEM file of the client's certificate.
        key: PEM file of the client's key.
    """
    cluster = {"server": server, "certificate-authority-data": _data(authority)}
    user = {"client-certificate-data": _data(certificate), "client-key-data": _data(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "voicemesh", "cluster": cluster}],
        "users": [{"name": "voicemesh", "user": user}],
        "contexts": [
            {"name": "voicemesh", "context": {"cluster": "voicemesh", "user": "voicemesh"}}
        ],
        "current-context": "voicemesh",
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
