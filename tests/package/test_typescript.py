"""An SDK for TypeScript is generated from `schema.json`, and holds programs to it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import toolbox
from tests.package import node, public_api
from tests.stacks import ROOT

EXAMPLE = ROOT / "examples" / "team-voice-typescript"
Check = Callable[[str], str]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """What the compiler says of a program that uses the SDK; nothing for one without faults."""
    folder = tmp_path_factory.mktemp("typescript")
    try:
        shutil.copytree(node.modules(EXAMPLE), folder / "node_modules", symlinks=True)
    except node.RegistryUnreachableError as error:
        pytest.skip(f"the example's npm packages are neither cached nor to be had: {error}")
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    sdk = folder / "node_modules" / "@pulumi" / "voicemesh"
    generate(sdk, "nodejs")
    built = node.run(compiler, "--project", str(sdk), cwd=sdk)
    assert built.returncode == 0, built.stdout
    shutil.copy(EXAMPLE / "tsconfig.json", folder)

    def compiled(program: str) -> str:
        (folder / "index.ts").write_text(program)
        return node.run(compiler, "--noEmit", "--pretty", "false", cwd=folder).stdout

    return compiled


def generate(folder: Path, language: str) -> None:
    """Writes the SDK for a language."""
    toolbox.ensure_tools(["package-sdk"])
    generator = str(toolbox.binary("package-sdk"))
    subprocess.run([generator, str(public_api.SCHEMA_FILE), language, str(folder)], check=True)


def test_the_example_type_checks(check: Check) -> None:
    assert check((EXAMPLE / "index.ts").read_text()) == ""


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
    check: Check, was: str, is_now: str, complaint: str
) -> None:
    program = (EXAMPLE / "index.ts").read_text()
    assert was in program
    assert complaint in check(program.replace(was, is_now))


def test_an_sdk_for_go_is_generated_too(tmp_path: Path) -> None:
    generate(tmp_path, "go")
    source = (tmp_path / "voicemesh" / "ttsVoiceService.go").read_text()
    assert re.search(r"GatewayRef\s+pulumi\.StringPtrInput", source)
