"""`helm.sh/v3:Release` through the real helm."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.api import Api, Object
from infra.local.adapters.kubernetes_provider.helm import (
    Helm,
    HelmError,
    ReleaseNotFoundError,
    install_arguments,
    rendered_objects,
    resource_names,
    template_arguments,
    values_file,
)
from infra.local.adapters.kubernetes_provider.kubeconfig import Cluster
from infra.local.adapters.kubernetes_provider.objects import (
    automatic_name,
    parse_identity,
    without_nulls,
)
from infra.local.adapters.kubernetes_provider.waiting import Waiter
from infra.local.adapters.property_values import Properties, changes, has_unknown, plain
from infra.local.adapters.provider_base import (
    Call,
    CancelledError,
    CheckFailedError,
    Diff,
    InitFailedError,
    Live,
    ProviderError,
    ResourceType,
    replaced_by,
    without_ignored,
)

_DEFAULT_TIMEOUT_SECONDS = 300
_COMPUTED = ("checksum", "resourceNames", "status", "compat")
# Inputs of the SDK that this adapter does not carry out; they are refused rather than ignored.
_REFUSED = ("disableCRDHooks", "lint", "manifest", "postrender", "recreatePods", "valueYamlFiles")


class HelmRelease(ResourceType):
    """A chart, installed and kept by helm."""

    def __init__(self, cluster: Cluster, api: Api, *, upsert: bool = False) -> None:
        self._helm, self._api, self._upsert = Helm(cluster), api, upsert

    @override
    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        inputs = {k: v for k, v in without_nulls(news).items() if k not in _COMPUTED}
        refused = [name for name in _REFUSED if inputs.get(name)]
        if refused:
            reason = "not supported by the embedded environment's kubernetes provider"
            raise CheckFailedError([(name, reason) for name in refused])
        if not inputs.get("name"):
            inputs["name"] = plain(olds.get("name")) or automatic_name(
                call.name, call.autoname, call.random_seed
            )
        inputs.setdefault("namespace", self._helm.cluster.namespace)
        if not inputs.get("skipAwait"):
            inputs.setdefault("timeout", _DEFAULT_TIMEOUT_SECONDS)
        if has_unknown(inputs):
            return inputs
        try:
            rendered = self._render(call, plain(inputs))
        except ProviderError as error:
            raise CheckFailedError([("chart", str(error))]) from error
        digest = hashlib.sha256(rendered.encode()).hexdigest()
        return {**inputs, "checksum": digest, "resourceNames": resource_names(rendered)}

    @override
    def diff(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Diff:
        changed = without_ignored(changes(old_inputs, news), call.ignore_changes)
        return Diff(changed, replaced_by(changed, [("name",), ("namespace",)]))

    @override
    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        release = plain(inputs)
        status = self._helm.status(release)
        if status and not self._upsert and not is_cut_off(status):
            raise ProviderError(
                f"Helm release {_id(release)} already exists; import it, uninstall it, or set the "
                "provider's upsertExistingObjects to take it over"
            )
        return _id(release), self._installed(call, inputs)

    @override
    def update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        return self._installed(call, news)

    @override
    def preview_update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        return {k: v for k, v in news.items() if k != "status"}

    @override
    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        namespace, name = parse_identity(id_)
        release = plain(inputs) or {"name": name, "namespace": namespace}
        status = self._helm.status(release)
        if status is None:
            return None
        live_inputs = inputs or self._imported(release)
        live = Live(id_, self._outputs(live_inputs, status), live_inputs)
        if inputs and status["info"]["status"] != "deployed":
            told = f"{status['info']['status']}: {status['info'].get('description', '')}"
            raise InitFailedError(id_, live.outputs, [f"Helm release {id_} is {told}"], live_inputs)
        return live

    @override
    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        namespace, name = parse_identity(id_)
        release = plain(inputs or outputs)
        timeout = _timeout(call, release)
        arguments = ["uninstall", name, "--namespace", namespace, f"--timeout={timeout:g}s"]
        if not release.get("skipAwait"):
            arguments += ["--wait", "--cascade", "foreground"]
        try:
            self._helm.run(arguments, call)
        except ReleaseNotFoundError:
            return

    def _installed(self, call: Call, inputs: Properties) -> Properties:
        """Installs or upgrades; the outputs of the release as it then is."""
        release = plain(inputs)
        self._tidy(call, release)
        with values_file(release) as values:
            try:
                self._helm.run(install_arguments(release, values, _timeout(call, release)), call)
            except (HelmError, CancelledError) as error:
                status = self._helm.status(release)
                if status is None:
                    raise
                reason = f"Helm release {_id(release)} exists, but failed: {error}"
                unready = self._unready(release, str(status.get("manifest") or ""))
                outputs = self._outputs(inputs, status)
                raise InitFailedError(_id(release), outputs, [reason, *unready]) from error
        status = self._helm.status(release)
        if status is None:
            raise ProviderError(f"helm installed {_id(release)}, but does not know it afterwards")
        return self._outputs(inputs, status)

    def _unready(self, release: Properties, rendered: str) -> list[str]:
        """What each object of a release that is not ready still lacks."""
        told: list[str] = []
        for obj in rendered_objects(rendered):
            try:
                told += self._lacking(release, obj)
            except ProviderError as error:
                told.append(str(error))
        return told

    def _lacking(self, release: Properties, obj: Object) -> list[str]:
        api_version, kind_name = str(obj.get("apiVersion")), str(obj.get("kind"))
        if readiness.awaited(api_version, kind_name) is None:
            return []
        kind, name = self._api.kind(api_version, kind_name), obj["metadata"]["name"]
        namespace = obj["metadata"].get("namespace") or release["namespace"]
        live = self._api.get(kind, namespace, name)
        lacking = Waiter(self._api).lacking(kind, live) if live else ("it does not exist",)
        return [f"{kind_name} {name}: {text}" for text in lacking]

    def _tidy(self, call: Call, release: Properties) -> None:
        """Makes helm accept a release again whose last operation was cut off."""
        status = self._helm.status(release)
        if status is None or not is_cut_off(status):
            return
        state, place = status["info"]["status"], ["--namespace", release["namespace"]]
        call.warn(f"Helm release {_id(release)} was left in state {state}; making it usable again")
        if status["version"] == 1:
            self._helm.run(["uninstall", release["name"], *place, "--wait"], call)
        else:
            self._helm.run(["rollback", release["name"], *place], call)

    def _render(self, call: Call, release: Properties) -> str:
        with values_file(release) as values:
            return self._helm.run(template_arguments(release, values), call)

    def _outputs(self, inputs: Properties, status: Mapping[str, Any]) -> Properties:
        release = plain(inputs)
        metadata = self._helm.metadata(release)
        shown = {
            "name": status["name"],
            "namespace": status["namespace"],
            "status": status["info"]["status"],
            "revision": status["version"],
            "chart": metadata.get("chart", ""),
            "version": metadata.get("version", ""),
            "appVersion": metadata.get("appVersion", ""),
        }
        names = resource_names(status.get("manifest") or "")
        return {**inputs, "resourceNames": names, "version": shown["version"], "status": shown}

    def _imported(self, release: Properties) -> Properties:
        """The inputs that helm remembers of a release that it did not install for Pulumi."""
        metadata = self._helm.metadata(release)
        return {
            **release,
            "chart": metadata.get("chart", ""),
            "version": metadata.get("version", ""),
            "values": self._helm.values(release),
            "timeout": _DEFAULT_TIMEOUT_SECONDS,
        }


def is_cut_off(status: Mapping[str, Any]) -> bool:
    """Whether a release is in the middle of an operation that nobody finishes any more.

    Pulumi's own operations on a release end before it starts another.
    """
    return status["info"]["status"].startswith("pending-")


def _timeout(call: Call, release: Mapping[str, Any]) -> float:
    return call.timeout_seconds or release.get("timeout") or _DEFAULT_TIMEOUT_SECONDS


def _id(release: Mapping[str, Any]) -> str:
    return f"{release['namespace']}/{release['name']}"
