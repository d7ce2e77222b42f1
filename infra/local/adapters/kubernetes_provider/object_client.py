"""Objects of one kind on the server: where they are, and what the server says to changes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from infra.local.adapters.kubernetes_provider.api import Api, ApiError, Kind, KindNotServedError
from infra.local.adapters.kubernetes_provider.objects import (
    PATCH_FORCE,
    Object,
    identity,
    is_builtin,
    is_true,
)
from infra.local.adapters.property_values import Properties, plain


@dataclass(frozen=True)
class ObjectSettings:
    """The provider's configuration as far as objects need it.

    Args:
        default_namespace: for namespaced objects that name none.
        config_map_mutable: change ConfigMaps in place instead of replacing them.
        secret_mutable: change Secrets in place instead of replacing them.
        upsert: take existing objects over instead of refusing to create them.
        patch_force: take fields over from other field managers.
    """

    default_namespace: str = "default"
    config_map_mutable: bool = False
    secret_mutable: bool = False
    upsert: bool = False
    patch_force: bool = False


@dataclass(frozen=True)
class ObjectClient:
    """The objects of one kind.

    Args:
        api: the server.
        settings: the provider's configuration.
        api_version: of the resource's type; an object may ask for another.
        kind_name: the kind, such as `Deployment`.
    """

    api: Api
    settings: ObjectSettings
    api_version: str
    kind_name: str

    def kind(self, obj: Properties) -> Kind:
        """How the server serves the object's kind; raises `KindNotServedError`."""
        return self.api.kind(str(plain(obj.get("apiVersion")) or self.api_version), self.kind_name)

    def kind_if_served(self, obj: Properties) -> Kind | None:
        """The kind, or None where its CRD is still to come.

        Raises:
            KindNotServedError: it is no custom resource, so that nothing can still come.
        """
        try:
            return self.kind(obj)
        except KindNotServedError:
            if is_builtin(self.api_version):
                raise
            return None

    def namespace(self, kind: Kind) -> str:
        """Where objects live that name no namespace; empty for a cluster-wide kind."""
        return self.settings.default_namespace if kind.namespaced else ""

    def placed(self, kind: Kind, obj: Object) -> Object:
        """The object with the namespace in which it will be, or none if it has no place for one."""
        metadata = {k: v for k, v in obj["metadata"].items() if k != "namespace"}
        if kind.namespaced:
            metadata["namespace"] = obj["metadata"].get("namespace") or self.namespace(kind)
        return {**obj, "metadata": metadata}

    def find(self, kind: Kind, obj: Object) -> Object | None:
        """The live object of the same name."""
        metadata = obj["metadata"]
        return self.api.get(kind, metadata.get("namespace", ""), metadata["name"])

    def apply(self, kind: Kind, obj: Object) -> Object:
        """Makes the live object what this one says; raises `ApiError` with its name."""
        try:
            if kind.kind == "CustomResourceDefinition" and (old := self.find(kind, obj)):
                # As the released provider does: fields of a schema must not be merged.
                version = old["metadata"]["resourceVersion"]
                metadata = {**obj["metadata"], "resourceVersion": version}
                return self.api.replace(kind, {**obj, "metadata": metadata})
            return self._merge(kind, obj)
        except ApiError as error:
            raise self.refused("applied", obj, error) from error

    def dry_run(self, kind: Kind, obj: Object) -> Object:
        """What `apply` would make of it; a conflict with other field managers is not told."""
        try:
            return self.api.apply(kind, obj, force=True, dry_run=True)
        except ApiError as error:
            raise self.refused("accepted", obj, error) from error

    def refused(self, verb: str, obj: Object, error: ApiError) -> ApiError:
        """The error with the object's name and what to do."""
        hint = ""
        if error.status == httpx.codes.CONFLICT and conflicting_managers(error.message):
            hint = f"; set the annotation {PATCH_FORCE} to take the fields over"
        return ApiError(
            error.status,
            error.reason,
            f"{self.kind_name} {identity(obj)} was not {verb} by the Kubernetes API server: "
            f"{error.message}{hint}",
        )

    def _merge(self, kind: Kind, obj: Object) -> Object:
        force = self.settings.patch_force or is_true(obj, PATCH_FORCE)
        try:
            return self.api.apply(kind, obj, force=force)
        except ApiError as error:
            if error.status == httpx.codes.CONFLICT and is_edited_by_hand(error.message):
                return self.api.apply(kind, obj, force=True)
            raise


def conflicting_managers(message: str) -> frozenset[str]:
    """Who owns the fields that an apply may not change, from the server's message."""
    return frozenset(re.findall(r'conflicts? with "([^"]+)"', message))


def is_edited_by_hand(message: str) -> bool:
    """Whether only kubectl, or an older client-side Pulumi, owns the conflicting fields.

    The released provider takes those over without asking.
    """
    managers = conflicting_managers(message)
    by_hand = ("kubectl", "before-first-apply", "pulumi-")
    return bool(managers) and all(manager.startswith(by_hand) for manager in managers)


def is_premature(error: ApiError) -> bool:
    """Whether the server cannot judge an object yet, or not for this user, or not in a dry run."""
    homeless = error.status == httpx.codes.NOT_FOUND and "namespaces" in error.message
    forbidden = error.status == httpx.codes.FORBIDDEN and error.reason == "Forbidden"
    return homeless or forbidden or "does not support dry run" in error.message
