"""An SDK for TypeScript is generated from `schema.json`, and holds programs to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.package import node

PROGRAM = (node.EXAMPLE / "index.ts").read_text()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> node.Project:
    try:
        return node.Project(tmp_path_factory.mktemp("typescript"))
    except node.RegistryUnreachableError as error:
        pytest.skip(f"the example's npm packages are neither cached nor to be had: {error}")


def test_the_example_type_checks(project: node.Project) -> None:
    assert project.compile(PROGRAM) == ""


@pytest.mark.parametrize(
    ("was", "is_now", "complaint"),
    [
        (
            "serviceName:",
            "service_name:",
            "'service_name' does not exist in type 'TtsVoiceServiceArgs'",
        ),
        ('version: "1.0.0", ', "", "Property 'version' is missing"),
        ("cpuCores: 8", 'cpuCores: "8"', "Type 'string' is not assignable to type 'number'"),
        ('version: "1.0.0"', "version: tenant.namespace", "is not assignable to type 'string'"),
        ("voice.urls", "voice.url", "Property 'url' does not exist on type 'TtsVoiceService'"),
    ],
    ids=["misspelt", "missing", "of another type", "not known in time", "no such output"],
)
def test_a_mistake_is_found_by_the_compiler(
    project: node.Project, was: str, is_now: str, complaint: str
) -> None:
    assert was in PROGRAM
    assert complaint in project.compile(PROGRAM.replace(was, is_now))


def test_an_sdk_for_go_is_generated_too(tmp_path: Path) -> None:
    node.generate_sdk(tmp_path, "go")
    source = (tmp_path / "voicemesh" / "ttsVoiceService.go").read_text()
    assert re.search(r"GatewayRef\s+pulumi\.StringPtrInput", source)
