"""Charts are rendered where they are at hand, and their manifests are checked."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from infra.local import toolbox
from tests.policies.small_project import DEPLOYMENT, NAMESPACE, TELLTALE, SmallProject
from voicemesh.policy.charts import RELEASE
from voicemesh.policy.resources import UNKNOWN

_VALUES = "replicas: 1\nimage: server:1.0\n"
_TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}
spec:
  replicas: {{ .Values.replicas }}
  template: {spec: {containers: [{name: server, image: {{ .Values.image | quote }}}]}}
"""
_DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: voices.example.com}
spec: {group: example.com, versions: [{name: v1, served: true, schema: {openAPIV3Schema: {}}}]}
"""


@pytest.fixture(scope="module")
def helm() -> str:
    toolbox.ensure_tools(["helm"])
    return str(toolbox.binary("helm"))


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    folder = tmp_path / "charts" / "server-chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "crds").mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: server\nversion: 1.2.3\n")
    (folder / "values.yaml").write_text(_VALUES)
    (folder / "templates" / "server.yaml").write_text(_TEMPLATE)
    (folder / "crds" / "voices.yaml").write_text(_DEFINITION)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    (tmp_path / "project").mkdir()
    return SmallProject(tmp_path / "project")


def release(chart: str | Path, **inputs: object) -> str:
    """A program with one Namespace, and one Release of a chart."""
    given = {"chart": str(chart), "name": "speech", "namespace": "voices", **inputs}
    return f"made({NAMESPACE!r}, 'voices')\nmade({RELEASE!r}, 'release', {given!r})\n"


def test_a_manifest_that_violates_a_policy_refuses_the_stack(
    project: SmallProject, chart: Path, helm: str
) -> None:
    assert not project.program(release(chart)).check(helm=helm).refused
    project.program(release(chart, values={"replicas": 4}))
    verdict = project.check(helm=helm)
    (violation,) = verdict.violations
    assert verdict.refused
    assert violation.policy == "limit-replicas"
    assert violation.urn == (f"urn:pulumi:test::small::{RELEASE}${DEPLOYMENT}::voices/speech")


def test_an_unrendered_chart_is_named_and_refuses_nothing(
    project: SmallProject, chart: Path
) -> None:
    project.program(release(chart, values={"replicas": 4}))
    verdict = project.check(helm="no-helm")
    (unchecked,) = verdict.unchecked
    assert unchecked.what == f"urn:pulumi:test::small::{RELEASE}::release"
    assert unchecked.reason == "no-helm is not there to render it; install helm"
    assert not verdict.refused


def test_a_chart_of_a_repository_is_found_by_name_and_version(
    project: SmallProject, chart: Path, helm: str
) -> None:
    from_repository = {
        "version": "1.2.3",
        "repositoryOpts": {"repo": "https://charts.example.com"},
        "values": {"replicas": 4},
    }
    project.program(release("server", **from_repository))
    assert project.check(helm=helm, directories=(chart.parent,)).refused
    project.program(release("server", **from_repository | {"version": "1.2.4"}))
    (unchecked,) = project.check(helm=helm, directories=(chart.parent,)).unchecked
    assert unchecked.reason.startswith("the chart server 1.2.4 is not at hand: `helm pull` it")


def test_a_chart_is_found_as_an_archive_in_helms_cache(
    project: SmallProject,
    chart: Path,
    helm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(cache / "server-1.2.3.tgz", "w:gz") as archive:
        archive.add(chart, "server")
    monkeypatch.setenv("HELM_REPOSITORY_CACHE", str(cache))
    inputs = {"version": "1.2.3", "values": {"replicas": 4}}
    project.program(release("oci://registry.example.com/server", **inputs))
    assert project.check(helm=helm).refused


def test_a_local_chart_that_is_elsewhere_is_found_by_its_folder(
    project: SmallProject, chart: Path, helm: str
) -> None:
    project.program(release("/nowhere/server-chart", values={"replicas": 4}))
    assert project.check(helm=helm, directories=(chart.parent,)).refused


def test_what_depends_on_an_unknown_value_is_unknown(
    project: SmallProject, chart: Path, helm: str
) -> None:
    project.program(
        f"""
        registry = made("acme:index:Registry", "registry", {{"host": None}})
        image = pulumi.Output.concat(registry.host, "/server:1.0")
        made({RELEASE!r}, "release", {{"chart": {str(chart)!r}, "values": {{"image": image}}}})
        """
    )
    verdict = project.check(TELLTALE, helm=helm)
    (said,) = (
        it.message
        for it in verdict.violations
        if DEPLOYMENT in it.urn and it.policy == "tell-resource"
    )
    assert f'"image": "{UNKNOWN}"' in said


def test_schemas_of_definitions_are_left_out(project: SmallProject, chart: Path, helm: str) -> None:
    verdict = project.program(release(chart)).check(TELLTALE, helm=helm)
    (said,) = (
        it.message
        for it in verdict.violations
        if "CustomResourceDefinition" in it.urn and it.policy == "tell-resource"
    )
    assert '"versions": [{"name": "v1", "served": true}]' in said


def test_a_chart_that_cannot_be_rendered_says_why(
    project: SmallProject, chart: Path, helm: str
) -> None:
    (chart / "templates" / "server.yaml").write_text('{{ fail "no voice is given" }}')
    (unchecked,) = project.program(release(chart)).check(helm=helm).unchecked
    assert "helm template failed" in unchecked.reason
    assert "no voice is given" in unchecked.reason


@pytest.mark.parametrize("field", ["chart", "version"])
def test_a_chart_that_is_not_known_is_named(project: SmallProject, helm: str, field: str) -> None:
    project.program(
        f"""
        made({RELEASE!r}, "release", {{
            "chart": "server", {field!r}: made("acme:index:Any", "any", {{"it": None}}).it,
        }})
        """
    )
    (unchecked,) = project.check(helm=helm).unchecked
    assert unchecked.reason == "which chart it is, is not known before deployment"
