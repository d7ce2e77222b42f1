"""Kubernetes objects of any kind as Pulumi resources."""

from __future__ import annotations

import httpx
from typing_extensions import override

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.api import Api, ApiError, Kind, KindNotServedError
from infra.local.adapters.kubernetes_provider.drift import drifted_inputs
from infra.local.adapters.kubernetes_provider.object_client import (
    ObjectClient,
    ObjectSettings,
    is_premature,
)
from infra.local.adapters.kubernetes_provider.objects import (
    AUTONAMED,
    DELETION_PROPAGATION,
    SKIP_AWAIT,
    Object,
    annotation,
    api_version_and_kind,
    identity,
    imported_inputs,
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


class ObjectType(ResourceType):
    """One kind of object, written by server-side apply."""

    def __init__(self, token: str, api: Api, settings: ObjectSettings) -> None:
        self._client = ObjectClient(api, settings, *api_version_and_kind(token))
        self._waiter = Waiter(api)

    @override
    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        filled = {
            "apiVersion": self._client.api_version,
            "kind": self._client.kind_name,
            **news,
        }
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
        old, new = comparable(old_inputs), comparable(news)
        changed = without_ignored(changes(old, new), call.ignore_changes)
        if changed and old_outputs.get(_IMPORTED):
            changed = self._real_changes(changed, news)
        forcing = forcing_paths(
            plain(old),
            config_map_mutable=self._client.settings.config_map_mutable,
            secret_mutable=self._client.settings.secret_mutable,
        )
        replaces = replaced_by(changed, forcing)
        return Diff(changed, replaces, delete_first=bool(replaces) and _keeps_name(old, new))

    @override
    def preview_create(self, call: Call, inputs: Properties) -> Properties:
        return self._preview(inputs, new=True)

    @override
    def preview_update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        return self._preview(news, new=False)

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
        kind = self._client.kind(obj)
        live = self._client.apply(kind, self._client.placed(kind, obj))
        return live_outputs(self._ready(call, kind, live))

    @override
    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        try:
            kind = self._client.kind(inputs or outputs)
        except KindNotServedError:
            return None
        namespace, name = parse_identity(id_)
        live = self._client.api.get(kind, namespace or self._client.namespace(kind), name)
        if live is None:
            return None
        if not inputs:
            return Live(id_, {**live_outputs(live), _IMPORTED: True}, imported_inputs(live))
        found = Live(id_, live_outputs(live), self._live_inputs(kind, inputs, live))
        self._report_unready(kind, found, live)
        return found

    @override
    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        known = manifest(outputs or inputs)
        try:
            kind = self._client.kind(known)
        except KindNotServedError:
            return
        namespace, name = parse_identity(id_)
        namespace = namespace or self._client.namespace(kind)
        uid = (known.get("metadata") or {}).get("uid", "")
        wish = (annotation(known, DELETION_PROPAGATION) or "foreground").lower()
        try:
            self._client.api.delete(kind, namespace, name, _PROPAGATION.get(wish, "Foreground"))
        except ApiError as error:
            raise self._client.refused("deleted", known, error) from error
        if not is_true(known, SKIP_AWAIT):
            self._waiter.until_gone(call, kind, namespace, name, uid)
        call.status("")

    def _with_namespace(self, inputs: Properties) -> Properties:
        """The inputs with the provider's namespace, where they may and do not name one."""
        metadata, default = inputs.get("metadata"), self._client.settings.default_namespace
        if default == "default" or not isinstance(metadata, dict) or metadata.get("namespace"):
            return inputs
        kind = self._client.kind_if_served(inputs)
        if kind is not None and not kind.namespaced:
            return inputs
        return {**inputs, "metadata": {**metadata, "namespace": default}}

    def _preview(self, inputs: Properties, *, new: bool) -> Properties:
        kind = self._client.kind_if_served(inputs)
        if kind is None or not is_complete(inputs):
            return inputs
        obj = self._client.placed(kind, manifest(inputs))
        if new and self._client.find(kind, obj):
            return self._preview_successor(kind, obj, inputs)
        try:
            return planned_outputs(self._client.dry_run(kind, obj), inputs, new=new)
        except ApiError as error:
            if is_premature(error):
                return inputs
            raise

    def _preview_successor(self, kind: Kind, obj: Object, inputs: Properties) -> Properties:
        """Of an object that is about to be replaced (or exists already, as the update will tell).

        Its immutable fields must not be compared with its predecessor's, so it gets another name.
        """
        name = f"{obj['metadata']['name'][:240]}-preview"
        try:
            self._client.dry_run(kind, {**obj, "metadata": {**obj["metadata"], "name": name}})
        except ApiError as error:
            if error.status == httpx.codes.BAD_REQUEST:
                raise
        return inputs

    def _create_when_possible(self, call: Call, obj: Object) -> tuple[Kind, Object]:
        """Creates the object; tries again while its kind or namespace is only coming up."""
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                kind = self._client.kind(obj)
                placed = self._client.placed(kind, obj)
                self._make_room(call, kind, placed)
                return kind, self._client.apply(kind, placed)
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
        old = self._client.find(kind, obj)
        if old and old["metadata"].get("deletionTimestamp"):
            metadata = old["metadata"]
            place = metadata.get("namespace", "")
            self._waiter.until_gone(call, kind, place, metadata["name"], metadata["uid"])
        elif old and not self._client.settings.upsert:
            raise ProviderError(
                f"{kind.kind} {identity(obj)} already exists; import it, delete it, or set the "
                "provider's upsertExistingObjects to take it over"
            )

    def _ready(self, call: Call, kind: Kind, live: Object) -> Object:
        try:
            return self._waiter.until_ready(call, kind, live)
        except NotReadyError as error:
            about = f"{kind.kind} {identity(live)} exists, but did not become ready"
            reasons = [f"{about}: {error.reasons[0]}", *error.reasons[1:]]
            raise InitFailedError(identity(live), live_outputs(error.live), reasons) from error

    def _report_unready(self, kind: Kind, found: Live, live: Object) -> None:
        known = readiness.awaited(kind.api_version, kind.kind)
        if known is None or not known.reads or is_true(live, SKIP_AWAIT):
            return
        verdict = self._waiter.judge(kind, live)
        if not verdict.ready:
            raise InitFailedError(found.id, found.outputs, verdict.waiting_for, found.inputs)

    def _live_inputs(self, kind: Kind, inputs: Properties, live: Object) -> Properties:
        """The inputs, changed where somebody else changed what they had set."""
        applied = self._reapplied(kind, inputs)
        if applied is None:
            # Without the server's own view, differences in spelling would look like drift.
            return inputs
        return drifted_inputs(manifest(inputs), settled(applied), settled(live))

    def _real_changes(self, changed: dict[Path, Change], news: Properties) -> dict[Path, Change]:
        """Of an imported object: the changes that applying the program's inputs would make."""
        kind = self._client.kind_if_served(news)
        if kind is None or not is_complete(news):
            return changed
        live = self._client.find(kind, self._client.placed(kind, manifest(news)))
        applied = self._reapplied(kind, news)
        if live is None or applied is None:
            return changed
        return changes(settled(live), settled(applied))

    def _reapplied(self, kind: Kind, inputs: Properties) -> Object | None:
        """What the object would be if the inputs were applied now; None if they cannot be."""
        try:
            return self._client.dry_run(kind, self._client.placed(kind, manifest(inputs)))
        except ApiError:
            return None


def comparable(inputs: Properties) -> Properties:
    """The inputs in which the namespace `default`, which is implied, is not named."""
    result = normalised(inputs)
    metadata = plain(result.get("metadata"))
    if isinstance(metadata, dict) and metadata.get("namespace") == "default":
        rest = {key: value for key, value in metadata.items() if key != "namespace"}
        result = {**result, "metadata": rest}
    return result


def settled(obj: Object) -> Object:
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
