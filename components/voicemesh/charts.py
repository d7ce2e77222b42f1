"""Where Istio's charts come from."""

from dataclasses import dataclass
from typing import Any, Final

from pulumi_kubernetes.helm.v3 import RepositoryOptsArgs

from voicemesh.arguments import Faults

ISTIO_VERSION: Final = "1.31.0"
ISTIO_CHART_REPOSITORY: Final = "https://istio-release.storage.googleapis.com/charts"
ISTIO_IMAGE_HUB: Final = "registry.istio.io/release"

_CHART_DIRECTORIES: Final = {"cni": "istio-cni"}
"""Charts whose directory in Istio's sources is not named as the chart."""


@dataclass(frozen=True)
class ChartSource:
    """Where Istio's charts come from: a repository, or a directory that holds one for each."""

    repository: str | None = None
    """URL of a Helm repository; by default Istio's own. Conflicts with `directory`."""

    version: str | None = None
    """Version of the charts; by default `ISTIO_VERSION`. Conflicts with `directory`."""

    directory: str | None = None
    """A directory with the charts base, istio-cni, istiod and gateway."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes a source that is both a repository and a directory."""
        for field_name in ("repository", "version"):
            value = getattr(self, field_name)
            conflicts = self.directory is not None and value is not None
            allowed = f"nothing, since {path}.directory is given"
            faults.require(not conflicts, f"{path}.{field_name}", value, allowed)

    def release_arguments(self, chart: str) -> dict[str, Any]:
        """The arguments of a Helm release that say which chart it installs."""
        if self.directory is not None:
            return {"chart": f"{self.directory}/{_CHART_DIRECTORIES.get(chart, chart)}"}
        return {
            "chart": chart,
            "version": self.version or ISTIO_VERSION,
            "repository_opts": RepositoryOptsArgs(repo=self.repository or ISTIO_CHART_REPOSITORY),
        }
