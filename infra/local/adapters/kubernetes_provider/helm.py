"""The real helm: how it is found, what it is told, and what it says."""

from __future__ import annotations

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

from infra.local.adapters.kubernetes_provider.kubeconfig import Cluster
from infra.local.adapters.kubernetes_provider.objects import without_nulls
from infra.local.adapters.property_values import Properties
from infra.local.adapters.provider_base import Call, CancelledError, ProviderError, program_root

_STATUS_EVERY_SECONDS = 1.0


class HelmError(ProviderError):
    """helm failed; the text is its own."""


class ReleaseNotFoundError(HelmError):
    """There is no such release."""


@dataclass(frozen=True)
class Helm:
    """helm on one cluster."""

    cluster: Cluster

    def run(self, arguments: Sequence[str], call: Call | None = None) -> str:
        """What helm printed.

        Args:
            arguments: its arguments.
            call: the operation whose user sees that helm works, and may interrupt it.

        Raises:
            HelmError: it failed.
            CancelledError: the user interrupted it.
        """
        with tempfile.NamedTemporaryFile("w", prefix="voicemesh-", suffix=".yaml") as kubeconfig:
            kubeconfig.write(self.cluster.text)
            kubeconfig.flush()
            environment = {**os.environ, "KUBECONFIG": kubeconfig.name}
            return _run([helm_binary(), *arguments], environment, call)

    def status(self, release: Properties) -> Mapping[str, Any] | None:
        """What helm knows of the release; None where there is none."""
        try:
            return self._read("status", release)
        except ReleaseNotFoundError:
            return None

    def metadata(self, release: Properties) -> Mapping[str, Any]:
        """The chart of the release: its name, version and appVersion."""
        return self._read("get metadata", release)

    def values(self, release: Properties) -> Mapping[str, Any]:
        """The values that the release was given."""
        return self._read("get values", release) or {}

    def _read(self, command: str, release: Properties) -> Any:
        place = ["--namespace", release["namespace"], "--output", "json"]
        return json.loads(self.run([*command.split(), release["name"], *place]))


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
    for obj in rendered_objects(rendered):
        metadata = obj.get("metadata") or {}
        place, name = metadata.get("namespace"), metadata.get("name", "")
        api_version = str(obj.get("apiVersion", ""))
        group = api_version.rpartition("/")[0]
        key = f"{obj['kind']}.{group}/{api_version}" if group else f"{obj['kind']}/{api_version}"
        names.setdefault(key, set()).add(f"{place}/{name}" if place else name)
    return {key: sorted(found) for key, found in sorted(names.items())}


def rendered_objects(rendered: str) -> Iterator[dict[str, Any]]:
    """The objects in a rendered chart."""
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


@contextmanager
def values_file(release: Mapping[str, Any]) -> Iterator[str]:
    """A file, while it is needed, with the release's values."""
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
    told = _told(outcome.error) or f"helm {command[1]} ended with {outcome.code}"
    raise (ReleaseNotFoundError if "release: not found" in told else HelmError)(told)


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
