"""Renders the Helm charts of a program that are on this machine: policies see their content.

To an engine a chart is one resource. `helm template` makes its manifests here, without a cluster
and without the network; a chart that is not at hand is named as unchecked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pulumi.runtime.proto import analyzer_pb2

from voicemesh.policy.project import mapping_of
from voicemesh.policy.resources import UNKNOWN, revealed, struct
from voicemesh.urns import child_urn

RELEASE: Final = "kubernetes:helm.sh/v3:Release"
CHART: Final = "kubernetes:helm.sh/v4:Chart"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEFINITION: Final = "CustomResourceDefinition"


@dataclass(frozen=True, order=True)
class Unchecked:
    """Something that the policies did not see."""

    what: str
    """A URN, or the name of a stack."""
    reason: str


def is_chart(resource: analyzer_pb2.AnalyzerResource) -> bool:
    """Whether it stands for a chart of Helm."""
    return resource.type in (RELEASE, CHART)


class _NotAtHandError(Exception):
    """Why a chart cannot be rendered."""


@dataclass(frozen=True)
class Charts:
    """Where charts are, and what renders them."""

    helm: str = "helm"
    """Name or path of the helm binary."""
    directories: tuple[Path, ...] = ()
    """Folders that hold charts by name, as folders or as archives (`name-version.tgz`). Helm's own
    cache of repositories is one of them already."""
    working_directory: Path = Path()
    """What the paths of local charts are relative to."""

    def render(
        self, chart: analyzer_pb2.AnalyzerResource
    ) -> list[analyzer_pb2.AnalyzerResource] | Unchecked:
        """The manifests of a chart, or why nobody sees them."""
        try:
            return self._manifests(chart)
        except _NotAtHandError as reason:
            return Unchecked(chart.urn, str(reason))

    def _manifests(
        self, release: analyzer_pb2.AnalyzerResource
    ) -> list[analyzer_pb2.AnalyzerResource]:
        inputs = revealed(release.properties)
        helm = shutil.which(self.helm)
        if helm is None:
            raise _NotAtHandError(f"{self.helm} is not there to render it; install helm")
        chart = self._at_hand(inputs)
        with tempfile.TemporaryDirectory(prefix="voicemesh-") as folder:
            command = [helm, *_template_arguments(release.name, inputs, chart, Path(folder))]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise _NotAtHandError(f"helm template failed: {done.stderr.strip()}")
        namespace = str(inputs.get("namespace") or "default")
        return [_as_resource(item, release, namespace) for item in _objects(done.stdout)]

    def _at_hand(self, inputs: Mapping[str, Any]) -> Path:
        """The chart's folder or archive on this machine."""
        chart, version = str(inputs.get("chart")), str(inputs.get("version") or "")
        if chart == UNKNOWN or version == UNKNOWN:
            raise _NotAtHandError("which chart it is, is not known before deployment")
        repository = inputs.get("repositoryOpts") or {}
        local = self.working_directory / chart
        if not repository.get("repo") and (local / "Chart.yaml").is_file():
            return local
        name = chart.rpartition("/")[2]
        for directory in (*self.directories, _repository_cache()):
            archive = directory / f"{name}-{version}.tgz"
            if archive.is_file():
                return archive
            for folder in sorted(file.parent for file in directory.glob("*/Chart.yaml")):
                if _identity(folder) == (name, version) or (not version and folder.name == name):
                    return folder
        raise _NotAtHandError(
            f"the chart {chart} {version}".rstrip() + " is not at hand: `helm pull` it, and name "
            "its folder with --charts"
        )


def _repository_cache() -> Path:
    cache = os.environ.get("HELM_REPOSITORY_CACHE")
    home = os.environ.get("HELM_CACHE_HOME") or Path.home() / ".cache" / "helm"
    return Path(cache) if cache else Path(home) / "repository"


def _identity(chart: Path) -> tuple[str, str]:
    described = mapping_of(chart / "Chart.yaml")
    return str(described.get("name")), str(described.get("version"))


def _template_arguments(
    name: str, inputs: Mapping[str, Any], chart: Path, folder: Path
) -> Iterator[str]:
    yield from ("template", str(inputs.get("name") or name), str(chart))
    yield from ("--namespace", str(inputs.get("namespace") or "default"))
    if not inputs.get("skipCrds"):
        yield "--include-crds"
    if inputs.get("disableWebhooks"):
        yield "--no-hooks"
    for index, asset in enumerate(inputs.get("valueYamlFiles") or []):
        if "path" in asset:
            yield from ("--values", asset["path"])
            continue
        text = folder / f"values-{index}.yaml"
        text.write_text(asset.get("text", ""))
        yield from ("--values", str(text))
    values = folder / "values.json"
    values.write_text(json.dumps(inputs.get("values") or {}))
    yield from ("--values", str(values))


def _objects(rendered: str) -> Iterator[dict[str, Any]]:
    for item in yaml.load_all(rendered, Loader=_LOADER):
        if not isinstance(item, dict) or "kind" not in item:
            continue
        if item["kind"] == "List":
            yield from item.get("items") or []
        else:
            yield item


def _as_resource(
    manifest: dict[str, Any], release: analyzer_pb2.AnalyzerResource, namespace: str
) -> analyzer_pb2.AnalyzerResource:
    """A manifest as the provider's own resources of its kind look like."""
    api_version, kind = str(manifest.get("apiVersion")), str(manifest["kind"])
    metadata = manifest.get("metadata") or {}
    if kind == _DEFINITION:
        manifest = _without_schemas(manifest)
    place = metadata.get("namespace") or namespace
    qualified = f"core/{api_version}" if "/" not in api_version else api_version
    type_ = f"kubernetes:{qualified}:{kind}"
    name = f"{place}/{metadata.get('name')}"
    stack, project = release.urn.removeprefix("urn:pulumi:").split("::")[:2]
    return analyzer_pb2.AnalyzerResource(
        urn=child_urn(stack, project, release.urn, type_, name),
        type=type_,
        name=name,
        parent=release.urn,
        properties=struct(_unknown_where_it_says(manifest)),
        provider=release.provider if release.HasField("provider") else None,
        options=analyzer_pb2.AnalyzerResourceOptions(
            parent=release.urn,
            customTimeouts=analyzer_pb2.AnalyzerResourceOptions.CustomTimeouts(),
        ),
    )


def _without_schemas(definition: dict[str, Any]) -> dict[str, Any]:
    """Schemas are most of what a chart renders, megabytes that no policy of a program is about."""
    spec = definition.get("spec") or {}
    versions = [
        {key: value for key, value in version.items() if key != "schema"}
        for version in spec.get("versions") or []
    ]
    return {**definition, "spec": {**spec, "versions": versions}}


def _unknown_where_it_says(value: Any) -> Any:
    """A text that was made with an unknown value is itself unknown."""
    if isinstance(value, dict):
        return {str(key): _unknown_where_it_says(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unknown_where_it_says(entry) for entry in value]
    if isinstance(value, str):
        return UNKNOWN if UNKNOWN in value else value
    # YAML has dates, protobuf's Struct has not.
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
