"""The example in TypeScript previews on the real engine, which runs the components in Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.package import node, node_language_host
from tests.stacks import ROOT

from .engine import Stack

PLATFORM = """
pulumi.export(
    "gateway",
    {
        "ref": "istio-ingress/public-gateway",
        "namespace": "istio-ingress",
        "principal": "cluster.local/ns/istio-ingress/sa/public-gateway",
    },
)
pulumi.export("injectionLabels", {"istio-injection": "enabled"})
"""


@pytest.fixture
def team(tmp_path: Path, kubeconfig: Path) -> Stack:
    """The example's stack, in the backend of a platform's stack to which it refers."""
    try:
        project = node.Project(tmp_path)
    except node.RegistryUnreachableError as error:
        pytest.skip(f"the example's npm packages are neither cached nor to be had: {error}")
    assert project.compile((node.EXAMPLE / "index.ts").read_text()) == ""
    platform = Stack(tmp_path / "platform", kubeconfig)
    platform.up(PLATFORM)
    team = Stack(project.folder, kubeconfig)
    settings = yaml.safe_load((node.EXAMPLE / "Pulumi.yaml").read_text())
    del settings["packages"]
    settings["plugins"] = {"providers": [{"name": "voicemesh", "path": str(ROOT)}]}
    (team.folder / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    (team.folder / "package.json").write_text('{"main": "bin/index.js"}')
    node_language_host.write_executable(tmp_path)
    team.environment |= {
        "PATH": f"{tmp_path}:{team.environment['PATH']}",
        "PULUMI_BACKEND_URL": platform.environment["PULUMI_BACKEND_URL"],
    }
    team.cli("stack", "init", "dev")
    team.cli("config", "set", "platformStack", "organization/adapters/test")
    team.cli("config", "set", "image", "registry.example.com/speech-server:1.0.0")
    return team


def test_the_example_previews_and_a_refused_argument_is_named(team: Stack) -> None:
    text = team.cli("preview", "--diff").text
    for component in ("TenantNamespace::newsroom", "TtsVoiceService::newsroom-reader"):
        assert f"voicemesh:index:{component}]" in text
    assert re.search(r'requests\.nvidia\.com/gpu *: "2"', text)
    team.cli("config", "set", "--path", "hosts[0]", "Not A Host")
    refused = team.cli("preview", fails=True).text
    assert "property hosts[0] with value '{Not A Host}' has a problem: is 'Not A Host'" in refused
