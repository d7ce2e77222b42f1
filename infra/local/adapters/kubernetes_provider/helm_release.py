"""`helm.sh/v3:Release` through the real helm, found as `helm` on PATH or in HELM_BINARY."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.api import Api
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
    program_root,
    replaced_by,
    without_ignored,
)

_DEFAULT_TIMEOUT_SECONDS = 300
_COMPUTED = ("checksum", "resourceNames", "status", "compat")
_STATUS_EVERY_SECONDS = 1.0
_NOT_FOUND = "not found"
# Inputs of the SDK that this adapter does not carry out; they are refused rather than ignored.
_UNKNOWN_INPUTS = ("postrender", "valueYamlFiles", "manifest", "lint")


class HelmRelease(ResourceType):
    """A chart, installed and kept by helm."""

    def __init__(self, cluster: Cluster, api: Api, *, upsert: bool = False) -> None:
        self._cluster, self._api, self._upsert = cluster, api, upsert

    @override
    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        inputs = {k: v for k, v in without_nulls(news).items() if k not in _COMPUTED}
        refused = [name for name in _UNKNOWN_INPUTS if name in inputs]
        if refused:
            reason = "not supported by the embedded environment's kubernetes provider"
            raise CheckFailedError([(name, reason) for name in refused])
        if not inputs.get("name"):
            inputs["name"] = plain(olds.get("name")) or automatic_name(
                call.name, call.autoname, call.random_seed
            )
        inputs.setdefault("namespace", self._cluster.namespace)
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
        status = self._status(release)
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
        status = self._status(release)
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
            self._helm(call, arguments)
        except HelmError as error:
            if _NOT_FOUND not in str(error):
                raise

    def _installed(self, call: Call, inputs: Properties) -> Properties:
        """Installs or upgrades; the outputs of the release as it then is."""
        release = plain(inputs)
        self._tidy(call, release)
        with _values_file(release) as values:
            try:
                self._helm(call, install_arguments(release, values, _timeout(call, release)))
            except (HelmError, CancelledError) as error:
                status = self._status(release)
                if status is None:
                    raise
                reason = f"Helm release {_id(release)} exists, but failed: {error}"
                unready = self._unready(str(status.get("manifest") or ""))
                outputs = self._outputs(inputs, status)
                raise InitFailedError(_id(release), outputs, [reason, *unready]) from error
        status = self._status(release)
        if status is None:
            raise ProviderError(f"helm installed {_id(release)}, but does not know it afterwards")
        return self._outputs(inputs, status)

    def _unready(self, rendered: str) -> list[str]:
        """What each object of a release that is not ready still lacks."""
        waiter, told = Waiter(self._api), []
        for obj in _objects(rendered):
            api_version, kind_name = str(obj.get("apiVersion")), str(obj.get("kind"))
            if readiness.awaited(api_version, kind_name) is None:
                continue
            kind = self._api.kind(api_version, kind_name)
            metadata = obj["metadata"]
            live = self._api.get(kind, metadata.get("namespace", ""), metadata["name"])
            lacking = waiter.lacking(kind, live) if live else ("it does not exist",)
            told += [f"{kind_name} {metadata['name']}: {text}" for text in lacking]
        return told

    def _tidy(self, call: Call, release: Properties) -> None:
        """Makes helm accept a release again whose last operation was cut off."""
        status = self._status(release)
        if status is None or not is_cut_off(status):
            return
        state, place = status["info"]["status"], ["--namespace", release["namespace"]]
        call.warn(f"Helm release {_id(release)} was left in state {state}; making it usable again")
        if status["version"] == 1:
            self._helm(call, ["uninstall", release["name"], *place, "--wait"])
        else:
            self._helm(call, ["rollback", release["name"], *place])

    def _render(self, call: Call, release: Properties) -> str:
        with _values_file(release) as values:
            return self._helm(call, template_arguments(release, values))

    def _status(self, release: Properties) -> Mapping[str, Any] | None:
        """What helm knows of the release; None where there is none."""
        arguments = ["status", release["name"], "--namespace", release["namespace"], "-o", "json"]
        try:
            return json.loads(self._helm(None, arguments))
        except HelmError as error:
            if _NOT_FOUND in str(error):
                return None
            raise

    def _metadata(self, release: Properties) -> Mapping[str, Any]:
        place = ["--namespace", release["namespace"], "-o", "json"]
        return json.loads(self._helm(None, ["get", "metadata", release["name"], *place]))

    def _outputs(self, inputs: Properties, status: Mapping[str, Any]) -> Properties:
        release = plain(inputs)
        metadata = self._metadata(release)
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
        place = ["--namespace", release["namespace"], "-o", "json"]
        values = json.loads(self._helm(None, ["get", "values", release["name"], *place])) or {}
        metadata = self._metadata(release)
        return {
            **release,
            "chart": metadata.get("chart", ""),
            "version": metadata.get("version", ""),
            "values": values,
            "timeout": _DEFAULT_TIMEOUT_SECONDS,
        }

    def _helm(self, call: Call | None, arguments: Sequence[str]) -> str:
        with self._kubeconfig() as kubeconfig:
            environment = {
                **os.environ,
                "KUBECONFIG": kubeconfig,
                "HELM_DRIVER": os.environ.get("HELM_DRIVER", "secret"),
            }
            return _run([helm_binary(), *arguments], environment, call)

    @contextmanager
    def _kubeconfig(self) -> Iterator[str]:
        with tempfile.NamedTemporaryFile("w", prefix="voicemesh-", suffix=".yaml") as file:
            file.write(self._cluster.text)
            file.flush()
            yield file.name


def is_cut_off(status: Mapping[str, Any]) -> bool:
    """Whether a release is in the middle of an operation that nobody finishes any more.

    Pulumi's own operations on a release end before it starts another.
    """
    return status["info"]["status"].startswith("pending-")


class HelmError(ProviderError):
    """helm failed; the text is its own."""


def helm_binary() -> str:
    """The helm to run; raises `ProviderError` where there is none."""
    found = os.environ.get("HELM_BINARY") or shutil.which("helm")
    if not found:
        raise ProviderError(
            "helm is not on PATH, but a helm.sh/v3:Release needs it; install helm, or set "
            "HELM_BINARY to its path"
        )
    return found


def install_arguments(release: Mapping[str, Any], values: str, timeout_seconds: float) -> list[str]:
    """`helm upgrade --install …` for the release's inputs."""
    arguments = ["upgrade", "--install", release["name"], *_chart_arguments(release, values)]
    arguments += [f"--timeout={timeout_seconds:g}s"]
    if not release.get("skipAwait"):
        arguments.append("--wait")
        arguments += ["--wait-for-jobs"] if release.get("waitForJobs") else []
    flags = {
        "atomic": "--atomic",
        "cleanupOnFail": "--cleanup-on-fail",
        "createNamespace": "--create-namespace",
        "disableOpenapiValidation": "--disable-openapi-validation",
        "disableWebhooks": "--no-hooks",
        "forceUpdate": "--force",
        "renderSubchartNotes": "--render-subchart-notes",
        "resetValues": "--reset-values",
        "reuseValues": "--reuse-values",
        "takeOwnership": "--take-ownership",
    }
    arguments += [flag for name, flag in flags.items() if release.get(name)]
    if release.get("maxHistory") is not None:
        arguments.append(f"--history-max={release['maxHistory']}")
    if release.get("description"):
        arguments.append(f"--description={release['description']}")
    return arguments


def template_arguments(release: Mapping[str, Any], values: str) -> list[str]:
    """`helm template …`: what the chart makes of the values, without asking the cluster."""
    arguments = ["template", release["name"], *_chart_arguments(release, values)]
    if not release.get("skipCrds"):
        arguments.append("--include-crds")
    return arguments


def resource_names(rendered: str) -> dict[str, list[str]]:
    """The names in a rendered chart by kind, such as `Deployment.apps/apps/v1` and `Service/v1`."""
    names: dict[str, set[str]] = {}
    for obj in _objects(rendered):
        metadata = obj.get("metadata") or {}
        place, name = metadata.get("namespace"), metadata.get("name", "")
        api_version = str(obj.get("apiVersion", ""))
        group = api_version.rpartition("/")[0]
        key = f"{obj['kind']}.{group}/{api_version}" if group else f"{obj['kind']}/{api_version}"
        names.setdefault(key, set()).add(f"{place}/{name}" if place else name)
    return {key: sorted(found) for key, found in sorted(names.items())}


def _objects(rendered: str) -> Iterator[dict[str, Any]]:
    for obj in yaml.load_all(rendered, Loader=_LOADER):
        if isinstance(obj, dict) and "kind" in obj:
            yield obj


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _chart_arguments(release: Mapping[str, Any], values: str) -> list[str]:
    repository = release.get("repositoryOpts") or {}
    arguments = [
        _chart(str(release["chart"]), bool(repository.get("repo"))),
        "--namespace",
        release["namespace"],
        "--values",
        values,
    ]
    options = {
        "--version": release.get("version"),
        "--repo": repository.get("repo"),
        "--username": repository.get("username"),
        "--password": repository.get("password"),
        "--ca-file": repository.get("caFile"),
        "--cert-file": repository.get("certFile"),
        "--key-file": repository.get("keyFile"),
        "--keyring": release.get("keyring"),
    }
    for option, value in options.items():
        arguments += [option, str(value)] if value else []
    flags = {
        "dependencyUpdate": "--dependency-update",
        "devel": "--devel",
        "skipCrds": "--skip-crds",
        "verify": "--verify",
    }
    return arguments + [flag for name, flag in flags.items() if release.get(name)]


def _chart(chart: str, in_repository: bool) -> str:
    """A chart's name in its repository, or its folder: in the program's, else the project's."""
    if in_repository or "://" in chart:
        return chart
    for folder in (Path.cwd(), program_root()):
        if (folder / chart).exists():
            return str(folder / chart)
    return chart


def _timeout(call: Call, release: Mapping[str, Any]) -> float:
    return call.timeout_seconds or release.get("timeout") or _DEFAULT_TIMEOUT_SECONDS


def _id(release: Mapping[str, Any]) -> str:
    return f"{release['namespace']}/{release['name']}"


@contextmanager
def _values_file(release: Mapping[str, Any]) -> Iterator[str]:
    values = release.get("values") or {}
    if not release.get("allowNullValues"):
        values = without_nulls(values)
    with tempfile.NamedTemporaryFile("w", prefix="voicemesh-", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        yield file.name


@dataclass(frozen=True)
class _Outcome:
    code: int
    output: str
    error: str


def _run(command: Sequence[str], environment: Mapping[str, str], call: Call | None) -> str:
    """What helm printed; it is interrupted when the user interrupts."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    outcome = _outcome(process, call)
    if outcome.code == 0:
        return outcome.output
    if call and call.cancelled.is_set():
        raise CancelledError(f"helm {command[1]} was interrupted")
    raise HelmError(_told(outcome.error) or f"helm {command[1]} ended with {outcome.code}")


def _outcome(process: subprocess.Popen[str], call: Call | None) -> _Outcome:
    started, stopped = time.monotonic(), False
    while True:
        try:
            output, error = process.communicate(timeout=_STATUS_EVERY_SECONDS)
            return _Outcome(process.returncode, output, error)
        except subprocess.TimeoutExpired:
            if call is None:
                continue
            call.status(f"helm is working for {time.monotonic() - started:.0f} s")
            if call.cancelled.is_set() and not stopped:
                process.terminate()
                stopped = True


def _told(error: str) -> str:
    """helm's message without its warnings and the word that begins it."""
    lines = [
        line for line in error.strip().splitlines() if line and not line.startswith("WARNING:")
    ]
    return "\n".join(lines).removeprefix("Error: ")
