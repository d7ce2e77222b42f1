"""Helm releases through the real helm."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.adapters.kubernetes_provider.api import Api

from .engine import Stack

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: greeter\nversion: 0.1.0\nappVersion: '7'\n",
    "values.yaml": "greeting: hello\nserver: false\n",
    "templates/settings.yaml": """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
  namespace: {{ .Release.Namespace }}
data:
  greeting: {{ required "greeting must be set" .Values.greeting | quote }}
""",
    "templates/server.yaml": """
{{ if .Values.server }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
spec:
  selector: {matchLabels: {app: greeter}}
  template:
    metadata: {labels: {app: greeter}}
    spec: {containers: [{name: main, image: "localhost/none:1"}]}
{{ end }}
""",
}
PROGRAM = """
release = k8s.helm.v3.Release(
    "greeter",
    chart="charts/greeter",
    name="greeter",
    namespace="default",
    values={{"greeting": {greeting}}},
    timeout=20,
)
pulumi.export("status", release.status)
pulumi.export("names", release.resource_names)
"""


@pytest.fixture
def chart(stack: Stack) -> Path:
    folder = stack.folder / "charts" / "greeter"
    for name, text in CHART.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def greeting(api: Api) -> str | None:
    found = api.get(api.kind("v1", "ConfigMap"), "default", "greeter-settings")
    return found["data"]["greeting"] if found else None


def test_a_release_is_installed_upgraded_healed_and_uninstalled(
    stack: Stack, chart: Path, api: Api
) -> None:
    stack.preview(PROGRAM.format(greeting="'hello'"))
    assert greeting(api) is None, "a preview installs nothing"
    stack.up()
    outputs = stack.outputs()
    assert outputs["status"] == {
        "appVersion": "7",
        "chart": "greeter",
        "name": "greeter",
        "namespace": "default",
        "revision": 1,
        "status": "deployed",
        "version": "0.1.0",
    }
    assert outputs["names"] == {"ConfigMap/v1": ["default/greeter-settings"]}
    stack.unchanged()

    stack.up(PROGRAM.format(greeting="'good day'"))
    assert greeting(api) == "good day"
    assert stack.outputs()["status"]["revision"] == 2

    template = chart / "templates" / "settings.yaml"
    template.write_text(template.read_text() + "  added: by the chart\n")
    assert "checksum" in stack.preview().text, "a change inside the chart is a change"

    stack.refresh()
    stack.destroy()
    assert greeting(api) is None


def test_what_helm_says_about_a_bad_value_reaches_the_user(stack: Stack, chart: Path) -> None:
    refused = stack.preview(PROGRAM.format(greeting="''"), fails=True)
    assert "greeting must be set" in refused.text


def test_secret_values_of_a_release_stay_secret(stack: Stack, chart: Path, api: Api) -> None:
    told = stack.up(PROGRAM.format(greeting="pulumi.Output.secret('open-sesame')")).text
    assert greeting(api) == "open-sesame"
    assert "open-sesame" not in stack.export() + told
    assert "open-sesame" in stack.export(secrets=True)
    stack.destroy()


def test_a_release_that_does_not_become_ready_says_what_it_lacks(stack: Stack, chart: Path) -> None:
    program = PROGRAM.format(greeting="'hello', 'server': True").replace("timeout=20", "timeout=%s")
    failed = stack.up(program % 2, fails=True)
    assert "Helm release default/greeter exists, but failed" in failed.text
    assert "Deployment greeter: 1 of 1 replicas updated, 0 available" in failed.text
    assert "is failed" in stack.refresh().text, "a refresh does not forget it"
    stack.up(program % "2, skip_await=True")
    assert stack.outputs()["status"]["status"] == "deployed"
    stack.destroy()
