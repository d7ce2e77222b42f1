"""Kubernetes objects of any kind as Pulumi resources."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx
from typing_extensions import override

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.api import Api, ApiError, Kind, KindNotServedError
from infra.local.adapters.kubernetes_provider.drift import drifted_inputs
from infra.local.adapters.kubernetes_provider.objects import (
    AUTONAMED,
    DELETION_PROPAGATION,
    PATCH_FORCE,
    SKIP_AWAIT,
    Object,
    annotation,
    api_version_and_kind,
    identity,
    imported_inputs,
    is_builtin,
    is_complete,
    is_true,
    live_outputs,
    manifest,
    normalised,
    parse_identity,
    planned_outputs,
    with_name,
)
from infra.local.adapters.kubernetes_provider.replacement import forcing_paths
from infra.local.adapters.kubernetes_provider.waiting import NotReadyError, Waiter
from infra.local.adapters.property_values import Change, Path, Properties, changes, plain
from infra.local.adapters.provider_base import (
    Call,
    Diff,
    InitFailedError,
    Live,
    ProviderError,
    ResourceType,
    replaced_by,
    without_ignored,
)

_IMPORTED = "__imported"
# A custom resource may follow its CRD closely; the released provider tries as often.
_CREATE_ATTEMPTS = 6
_CREATE_PAUSE_SECONDS = 0.3
_PROPAGATION = {"foreground": "Foreground", "background": "Background", "orphan": "Orphan"}


@dataclass(frozen=True)
class ObjectSettings:
    """The provider's configuration as far as objects need it.

    Args:
        default_namespace: for namespaced objects that name none; empty for the server's own.
        config_map_mutable: change ConfigMaps in place instead of replacing them.
        secret_mutable: change Secrets in place instead of replacing them.
        upsert: take existing objects over instead of refusing to create them.
        patch_force: take fields over from other field managers.
    """

    default_namespace: str = ""
    config_map_mutable: bool = False
    secret_mutable: bool = False
    upsert: bool = False
    patch_force: bool = False


class ObjectType(ResourceType):
    """One kind of object, written by server-side apply."""

    def __init__(self, token: str, api: Api, settings: ObjectSettings) -> None:
        self._api_version, self._kind_name = api_version_and_kind(token)
        self._api, self._settings, self._waiter = api, settings, Waiter(api)

    @override
    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        filled = {"apiVersion": self._api_version, "kind": self._kind_name, **news}
        named = with_name(normalised(filled), olds, call.name, call.autoname, call.random_seed)
        return self._with_namespace(named)

    @override
    def diff(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Diff:
        old, new = self._comparable(old_inputs), self._comparable(news)
        changed = without_ignored(changes(old, new), call.ignore_changes)
        if changed and old_outputs.get(_IMPORTED):
            changed = self._real_changes(changed, news)
        forcing = forcing_paths(
            plain(old),
            config_map_mutable=self._settings.config_map_mutable,
            secret_mutable=self._settings.secret_mutable,
        )
        replaces = replaced_by(changed, forcing)
        return Diff(changed, replaces, delete_first=bool(replaces) and _keeps_name(old, new))

    @override
    def preview_create(self, call: Call, inputs: Properties) -> Properties:
        kind = self._kind_if_served(inputs)
        if kind is None or not is_complete(inputs):
            return inputs
        obj = self._placed(kind, manifest(inputs))
        if self._find(kind, obj):
            # The object is about to be replaced (or exists already, which the update reports):
            # its immutable fields must not be compared with those of its successor.
            return self._preview_successor(kind, obj, inputs)
        return self._preview(kind, obj, inputs, new=True)

    @override
    def preview_update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        kind = self._kind_if_served(news)
        if kind is None or not is_complete(news):
            return news
        return self._preview(kind, self._placed(kind, manifest(news)), news, new=False)

    @override
    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        obj = manifest(inputs)
        kind, live = self._create_when_possible(call, obj)
        live = self._ready(call, kind, live)
        return identity(live), live_outputs(live)

    @override
    def update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        obj = manifest(news)
        kind = self._kind(obj)
        live = self._applied(kind, self._placed(kind, obj))
        return live_outputs(self._ready(call, kind, live))

    @override
    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        known = manifest(inputs or outputs or {})
        api_version = known.get("apiVersion") or self._api_version
        try:
            kind = self._api.kind(api_version, self._kind_name)
        except KindNotServedError:
            return None
        namespace, name = parse_identity(id_)
        live = self._api.get(kind, namespace or self._namespace(kind), name)
        if live is None:
            return None
        if not inputs:
            imported = live_outputs(live)
            return Live(id_, {**imported, _IMPORTED: True}, imported_inputs(live))
        self._report_unready(kind, id_, live)
        return Live(id_, live_outputs(live), self._live_inputs(kind, inputs, live))

    @override
    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        known = manifest(outputs or inputs)
        try:
            kind = self._kind(known)
        except KindNotServedError:
            return
        namespace, name = parse_identity(id_)
        namespace = namespace or self._namespace(kind)
        uid = (known.get("metadata") or {}).get("uid", "")
        wish = (annotation(known, DELETION_PROPAGATION) or "foreground").lower()
        try:
            self._api.delete(kind, namespace, name, _PROPAGATION.get(wish, "Foreground"))
        except ApiError as error:
            raise self._refused("deleted", known, error) from error
        if not is_true(known, SKIP_AWAIT):
            self._waiter.until_gone(call, kind, namespace, name, uid)
        call.status("")

    def _with_namespace(self, inputs: Properties) -> Properties:
        default = self._settings.default_namespace
        metadata = inputs.get("metadata")
        if not default or not isinstance(metadata, dict) or metadata.get("namespace"):
            return inputs
        kind = self._kind_if_served(inputs)
        if kind is not None and not kind.namespaced:
            return inputs
        return {**inputs, "metadata": {**metadata, "namespace": default}}

    def _comparable(self, inputs: Properties) -> Properties:
        """The inputs, with the namespace that an object gets when it names none."""
        result = normalised(inputs)
        metadata = plain(result.get("metadata"))
        if isinstance(metadata, dict) and metadata.get("namespace") == "default":
            rest = {key: value for key, value in metadata.items() if key != "namespace"}
            result = {**result, "metadata": rest}
        return result

    def _kind(self, obj: Properties) -> Kind:
        return self._api.kind(
            str(plain(obj.get("apiVersion")) or self._api_version), self._kind_name
        )

    def _kind_if_served(self, inputs: Properties) -> Kind | None:
        """The kind, or None where its CRD is still to come.

        Raises:
            KindNotServedError: it is no custom resource, so that nothing can still come.
        """
        try:
            return self._kind(inputs)
        except KindNotServedError:
            if is_builtin(self._api_version):
                raise
            return None

    def _namespace(self, kind: Kind) -> str:
        return (self._settings.default_namespace or "default") if kind.namespaced else ""

    def _placed(self, kind: Kind, obj: Object) -> Object:
        metadata = dict(obj["metadata"])
        if kind.namespaced:
            metadata["namespace"] = metadata.get("namespace") or self._namespace(kind)
        else:
            metadata.pop("namespace", None)
        return {**obj, "metadata": metadata}

    def _find(self, kind: Kind, obj: Object) -> Object | None:
        metadata = obj["metadata"]
        return self._api.get(kind, metadata.get("namespace", ""), metadata["name"])

    def _force(self, obj: Object) -> bool:
        return self._settings.patch_force or is_true(obj, PATCH_FORCE)

    def _preview(self, kind: Kind, obj: Object, inputs: Properties, *, new: bool) -> Properties:
        try:
            # A conflict with another field manager is the update's to report.
            dry_run = self._api.apply(kind, obj, force=True, dry_run=True)
        except ApiError as error:
            if _is_premature(error):
                return inputs
            raise self._refused("accepted", obj, error) from error
        return planned_outputs(dry_run, inputs, new=new)

    def _preview_successor(self, kind: Kind, obj: Object, inputs: Properties) -> Properties:
        metadata = {**obj["metadata"], "name": f"{obj['metadata']['name'][:240]}-preview"}
        try:
            self._api.apply(kind, {**obj, "metadata": metadata}, force=True, dry_run=True)
        except ApiError as error:
            if error.status == httpx.codes.BAD_REQUEST:
                raise self._refused("accepted", obj, error) from error
        return inputs

    def _create_when_possible(self, call: Call, obj: Object) -> tuple[Kind, Object]:
        """Creates the object; tries again while its kind or namespace is only coming up."""
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                kind = self._kind(obj)
                placed = self._placed(kind, obj)
                self._make_room(call, kind, placed)
                return kind, self._applied(kind, placed)
            except (KindNotServedError, ApiError) as error:
                status = error.status if isinstance(error, ApiError) else httpx.codes.NOT_FOUND
                if status != httpx.codes.NOT_FOUND or attempt == _CREATE_ATTEMPTS:
                    raise
                call.status(f"retry {attempt}: {error}")
                if call.cancelled.wait(_CREATE_PAUSE_SECONDS * 1.6**attempt):
                    raise
        raise AssertionError("the loop returns or raises")

    def _make_room(self, call: Call, kind: Kind, obj: Object) -> None:
        """Waits for a predecessor that is being deleted; refuses to take an object over."""
        old = self._find(kind, obj)
        if old and old["metadata"].get("deletionTimestamp"):
            metadata = old["metadata"]
            place = metadata.get("namespace", "")
            self._waiter.until_gone(call, kind, place, metadata["name"], metadata["uid"])
        elif old and not self._settings.upsert:
            raise ProviderError(
                f"{kind.kind} {identity(obj)} already exists; import it, delete it, or set the "
                "provider's upsertExistingObjects to take it over"
            )

    def _applied(self, kind: Kind, obj: Object) -> Object:
        try:
            if kind.kind == "CustomResourceDefinition" and (old := self._find(kind, obj)):
                version = old["metadata"]["resourceVersion"]
                metadata = {**obj["metadata"], "resourceVersion": version}
                return self._api.replace(kind, {**obj, "metadata": metadata})
            return self._apply(kind, obj)
        except ApiError as error:
            raise self._refused("applied", obj, error) from error

    def _apply(self, kind: Kind, obj: Object) -> Object:
        try:
            return self._api.apply(kind, obj, force=self._force(obj))
        except ApiError as error:
            if error.status == httpx.codes.CONFLICT and is_edited_by_hand(error.message):
                return self._api.apply(kind, obj, force=True)
            raise

    def _refused(self, verb: str, obj: Object, error: ApiError) -> ApiError:
        hint = ""
        if error.status == httpx.codes.CONFLICT and conflicting_managers(error.message):
            hint = f"; set the annotation {PATCH_FORCE} to take the fields over"
        return ApiError(
            error.status,
            error.reason,
            f"{self._kind_name} {identity(obj)} was not {verb} by the Kubernetes API server: "
            f"{error.message}{hint}",
        )

    def _ready(self, call: Call, kind: Kind, live: Object) -> Object:
        try:
            return self._waiter.until_ready(call, kind, live)
        except NotReadyError as error:
            about = f"{self._kind_name} {identity(live)} exists, but did not become ready"
            reasons = [f"{about}: {error.reasons[0]}", *error.reasons[1:]]
            raise InitFailedError(identity(live), live_outputs(error.live), reasons) from error

    def _report_unready(self, kind: Kind, id_: str, live: Object) -> None:
        known = readiness.awaited(kind.api_version, kind.kind)
        if known is None or not known.reads or is_true(live, SKIP_AWAIT):
            return
        verdict = self._waiter.judge(kind, live)
        if not verdict.ready:
            raise InitFailedError(id_, live_outputs(live), verdict.waiting_for)

    def _live_inputs(self, kind: Kind, inputs: Properties, live: Object) -> Properties:
        """The inputs, changed where somebody else changed what they had set."""
        obj = self._placed(kind, manifest(inputs))
        try:
            applied = self._api.apply(kind, obj, force=True, dry_run=True)
        except ApiError:
            # What cannot be applied any more is told by the next update; without the server's
            # own view, differences in spelling would look like drift.
            return inputs
        return drifted_inputs(manifest(inputs), _settled(applied), _settled(live))

    def _real_changes(self, changed: dict[Path, Change], news: Properties) -> dict[Path, Change]:
        """Of an imported object: the changes that applying the program's inputs would make."""
        kind = self._kind_if_served(news)
        if kind is None or not is_complete(news):
            return changed
        obj = self._placed(kind, manifest(news))
        live = self._find(kind, obj)
        if live is None:
            return changed
        try:
            applied = self._api.apply(kind, obj, force=True, dry_run=True)
        except ApiError:
            return changed
        return changes(_settled(live), _settled(applied))


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


def _settled(obj: Object) -> Object:
    """The object without what changes by itself."""
    bookkeeping = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")
    metadata = {k: v for k, v in obj["metadata"].items() if k not in bookkeeping}
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": metadata}


def _keeps_name(old: Properties, new: Properties) -> bool:
    """Whether the new object has the old one's name and place, so that both cannot exist."""
    before, after = plain(old.get("metadata")), plain(new.get("metadata"))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    same = all(before.get(key) == after.get(key) for key in ("name", "namespace"))
    return same and (after.get("annotations") or {}).get(AUTONAMED) != "true"


def _is_premature(error: ApiError) -> bool:
    """Whether the server cannot judge the object yet, or not for this user, or not in a dry run."""
    homeless = error.status == httpx.codes.NOT_FOUND and "namespaces" in error.message
    forbidden = error.status == httpx.codes.FORBIDDEN and error.reason == "Forbidden"
    return homeless or forbidden or "does not support dry run" in error.message
