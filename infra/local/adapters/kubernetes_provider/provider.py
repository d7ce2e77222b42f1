"""The provider's configuration, and which token is which resource."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from infra.local.adapters.kubernetes_provider.api import Api
from infra.local.adapters.kubernetes_provider.helm_release import HelmRelease
from infra.local.adapters.kubernetes_provider.kubeconfig import Cluster, load_text, parse
from infra.local.adapters.kubernetes_provider.object_client import ObjectSettings
from infra.local.adapters.kubernetes_provider.object_type import ObjectType
from infra.local.adapters.kubernetes_provider.objects import is_builtin
from infra.local.adapters.property_values import Properties, plain
from infra.local.adapters.provider_base import (
    Provider,
    ProviderError,
    ResourceType,
    UnsupportedTypeError,
    program_root,
)

VERSION = "4.34.2"
RELEASE = "kubernetes:helm.sh/v3:Release"
_ENVIRONMENT = {
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
}
# Modules of the SDK that are components or transformations, not kinds of a server.
_NOT_OBJECTS = ("yaml/v2", "kustomize/v2", "helm.sh/v2", "helm.sh/v3", "helm.sh/v4")


class KubernetesProvider(Provider):
    """Objects of any kind that the cluster serves, and Helm releases."""

    def __init__(self) -> None:
        super().__init__("kubernetes", VERSION)
        self._config: Properties = {}
        self._cluster: Cluster | None = None
        self._api: Api | None = None
        self._lock = threading.Lock()

    def configure(self, config: Properties) -> None:
        self._config = plain(config)
        if self._option("enableServerSideApply", default=True) is False:
            raise ProviderError(
                "enableServerSideApply is false, but the embedded environment's kubernetes "
                "provider knows server-side apply only; remove the setting"
            )

    def resource_type(self, token: str) -> ResourceType:
        if token == RELEASE:
            upsert = self._option("upsertExistingObjects")
            return HelmRelease(self.cluster(), self.api(), upsert=upsert)
        parts = token.split(":")
        if len(parts) != 3 or parts[1] in _NOT_OBJECTS or "/" not in parts[1]:
            raise UnsupportedTypeError(token, self.name)
        if parts[2].endswith(("List", "Patch")) and is_builtin(parts[1]):
            raise UnsupportedTypeError(token, self.name)
        return ObjectType(token, self.api(), self._settings())

    def cluster(self) -> Cluster:
        """The configured cluster, read when it is first needed."""
        with self._lock:
            if self._cluster is None:
                folders = (Path.cwd(), program_root())
                text = load_text(self._config.get("kubeconfig"), folders)
                self._cluster = parse(text, self._config.get("context"))
            return self._cluster

    def api(self) -> Api:
        """The client for the configured cluster."""
        cluster = self.cluster()
        with self._lock:
            if self._api is None:
                self._api = Api(cluster)
            return self._api

    def _settings(self) -> ObjectSettings:
        return ObjectSettings(
            default_namespace=self._config.get("namespace") or self.cluster().namespace,
            config_map_mutable=self._option("enableConfigMapMutable"),
            secret_mutable=self._option("enableSecretMutable"),
            upsert=self._option("upsertExistingObjects"),
            patch_force=self._option("enablePatchForce"),
        )

    def _option(self, name: str, *, default: bool = False) -> bool:
        value: Any = self._config.get(name)
        if value is None:
            value = os.environ.get(_ENVIRONMENT.get(name, ""), default)
        return value if isinstance(value, bool) else str(value).lower() == "true"
