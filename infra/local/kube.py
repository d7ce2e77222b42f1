"""A small client of the environment's API server, for what the environment itself puts there."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from infra.local.errors import LocalEnvironmentError

_FIELD_MANAGER = "voicemesh-local"
_TIMEOUT_SECONDS = 20.0

# Kind: path of its API group, plural, whether it is in a namespace.
_KINDS: Mapping[str, tuple[str, str, bool]] = {
    "APIService": ("apis/apiregistration.k8s.io/v1", "apiservices", False),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "ConfigMap": ("api/v1", "configmaps", True),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "Namespace": ("api/v1", "namespaces", False),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies", True),
    "Node": ("api/v1", "nodes", False),
    "PersistentVolume": ("api/v1", "persistentvolumes", False),
    "Pod": ("api/v1", "pods", True),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "Secret": ("api/v1", "secrets", True),
    "Service": ("api/v1", "services", True),
    "ServiceAccount": ("api/v1", "serviceaccounts", True),
    "StorageClass": ("apis/storage.k8s.io/v1", "storageclasses", False),
}


class KubeApi:
    """The API server as the user of a kubeconfig sees it; a context manager.

    Args:
        kubeconfig: a file that carries its certificates, as `write_kubeconfig` makes it.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._client = httpx.Client(
            base_url=cluster["server"],
            verify=_context(cluster, user),
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> KubeApi:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def unready(self) -> str | None:
        """What the API server says is not ready yet; None once it is."""
        try:
            answer = self._client.get("/readyz", params={"verbose": ""})
        except httpx.TransportError as error:
            return str(error) or type(error).__name__
        if answer.is_success:
            return None
        return "; ".join(line for line in answer.text.splitlines() if line.startswith("[-]"))

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """An object; None where there is none of that name.

        Raises:
            LocalEnvironmentError: the API server refused or could not be reached.
        """
        answer = self._send("GET", f"{_path(kind, namespace)}/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return _content(answer, f"reading {kind} {name}")

    def list(self, kind: str, namespace: str = "", **query: str) -> list[dict[str, Any]]:
        """All objects of a kind, in one namespace or, where none is given, in all."""
        answer = self._send("GET", _path(kind, namespace), params=query)
        return _content(answer, f"listing {kind}")["items"]

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Creates or updates an object by server-side apply and returns it."""
        kind, meta = manifest["kind"], manifest["metadata"]
        answer = self._send(
            "PATCH",
            f"{_path(kind, meta.get('namespace', ''))}/{meta['name']}",
            params={"fieldManager": _FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=yaml.safe_dump(dict(manifest)).encode(),
        )
        return _content(answer, f"applying {kind} {meta['name']}")

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], part: str = "") -> None:
        """Merges a change into an object without a namespace, or into its part such as `status`."""
        answer = self._send(
            "PATCH",
            f"{_path(kind, '')}/{name}" + (f"/{part}" if part else ""),
            params={"fieldManager": _FIELD_MANAGER},
            headers={"Content-Type": "application/merge-patch+json"},
            json=dict(patch),
        )
        _content(answer, f"changing {kind} {name}")

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **request)
        except httpx.TransportError as error:
            raise LocalEnvironmentError(f"{method} {path} at the API server: {error}") from error


def _path(kind: str, namespace: str) -> str:
    group, plural, namespaced = _KINDS[kind]
    inside = f"/namespaces/{namespace}" if namespaced and namespace else ""
    return f"/{group}{inside}/{plural}"


def _content(answer: httpx.Response, what: str) -> dict[str, Any]:
    if answer.is_success:
        return answer.json()
    try:
        said = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.text[:500]
    raise LocalEnvironmentError(f"{what}: the API server answered {answer.status_code}: {said}")


def _context(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
    # The ssl module takes a client's certificate from files only.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _decode(data: str) -> str:
    return base64.b64decode(data).decode()
