"""A small client of the Kubernetes API: discovery, server-side apply, read, list, delete."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from infra.local.adapters.kubernetes_provider.kubeconfig import Cluster
from infra.local.adapters.provider_base import ProviderError

Object = dict[str, Any]

FIELD_MANAGER = "pulumi-kubernetes"
_CONNECTIONS = 64
# A control plane that restarts is back within this time; longer outages are the user's to see.
_RETRY_SECONDS = 15


class ApiError(ProviderError):
    """The API server refused.

    Args:
        status: HTTP status code.
        reason: the Status object's reason, such as `NotFound` or `Invalid`.
        message: its message, which names the fields.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class KindNotServedError(ProviderError):
    """The API server has no such kind, perhaps because its CRD is not installed (yet)."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(
            f"the Kubernetes API server does not serve {kind} in {api_version}; "
            "install its CustomResourceDefinition first, or correct apiVersion or kind"
        )


@dataclass(frozen=True)
class Kind:
    """A kind that the server serves: its REST name and scope."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool


class Api:
    """One API server; safe to use from many threads."""

    def __init__(self, cluster: Cluster) -> None:
        headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else {}
        self._http = httpx.Client(
            base_url=cluster.server,
            verify=cluster.ssl_context,
            headers=headers,
            timeout=httpx.Timeout(60, connect=10, pool=None),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            trust_env=False,
        )
        self._server = cluster.server
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def kind(self, api_version: str, kind: str) -> Kind:
        """How the server serves the kind; raises `KindNotServedError`."""
        found = self._kinds.get((api_version, kind))
        if found is None:
            with self._lock:
                self._discover(api_version)
            found = self._kinds.get((api_version, kind))
        if found is None:
            raise KindNotServedError(api_version, kind)
        return found

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return self._request("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def list(self, kind: Kind, namespace: str, **selectors: str) -> list[Object]:
        """The objects in the namespace; `labelSelector` and `fieldSelector` narrow them."""
        answer = self._request("GET", _path(kind, namespace), params=selectors)
        return answer.get("items") or []

    def apply(self, kind: Kind, obj: Object, *, force: bool, dry_run: bool = False) -> Object:
        """Applies the object with strict field validation; returns it as stored.

        Args:
            force: take fields over from other field managers instead of reporting a conflict.
            dry_run: validate, default and admit it, but store nothing.
        """
        metadata = obj["metadata"]
        parameters = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
            "force": str(force).lower(),
            **({"dryRun": "All"} if dry_run else {}),
        }
        return self._request(
            "PATCH",
            _path(kind, metadata.get("namespace", ""), metadata["name"]),
            params=parameters,
            content=json.dumps(obj),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def replace(self, kind: Kind, obj: Object) -> Object:
        """Replaces the object as a whole."""
        metadata = obj["metadata"]
        return self._request(
            "PUT",
            _path(kind, metadata.get("namespace", ""), metadata["name"]),
            params={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            content=json.dumps(obj),
            headers={"Content-Type": "application/json"},
        )

    def delete(self, kind: Kind, namespace: str, name: str, propagation: str) -> None:
        """Asks for the deletion; an object that is already gone is no error."""
        try:
            self._request(
                "DELETE",
                _path(kind, namespace, name),
                content=json.dumps({"propagationPolicy": propagation}),
                headers={"Content-Type": "application/json"},
            )
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def _discover(self, api_version: str) -> None:
        prefix = "/apis/" if "/" in api_version else "/api/"
        try:
            resources = self._request("GET", prefix + api_version)["resources"]
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return
            raise
        for resource in resources:
            if "/" not in resource["name"]:
                self._kinds[api_version, resource["kind"]] = Kind(
                    api_version, resource["kind"], resource["name"], resource["namespaced"]
                )

    def _request(self, method: str, path: str, **options: Any) -> Object:
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_delay(_RETRY_SECONDS),
            wait=wait_exponential(multiplier=0.2, max=3),
            reraise=True,
        )
        try:
            return retrying(self._request_once, method, path, **options)
        except httpx.TransportError as error:
            raise ProviderError(
                f"the Kubernetes API server {self._server} cannot be reached: {error}"
            ) from error

    def _request_once(self, method: str, path: str, **options: Any) -> Object:
        response = self._http.request(method, path, **options)
        if response.is_success:
            return response.json()
        raise _error(response)


def _passes(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, ApiError):
        busy = error.status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
        return busy or "failed calling webhook" in error.message
    return isinstance(error, httpx.TransportError)


def _error(response: httpx.Response) -> ApiError:
    try:
        status: Mapping[str, Any] = response.json()
    except ValueError:
        status = {}
    message = status.get("message") or response.text.strip() or response.reason_phrase
    return ApiError(response.status_code, status.get("reason") or "", message)


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    parts = ["apis" if "/" in kind.api_version else "api", kind.api_version]
    if kind.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name:
        parts.append(quote(name, safe=""))
    return "/" + "/".join(parts)
