"""What other stacks install: one typed package with light dependencies."""

from __future__ import annotations

import email
import email.message
import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.package.clean_install import Installation, locked_versions
from tests.stacks import ROOT

HEAVY = {"boto3", "fastapi", "kubernetes", "moto", "numpy", "onnxruntime", "torch", "uvicorn"}


@pytest.fixture(scope="module")
def files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, files: list[str]) -> email.message.Message:
    (name,) = [name for name in files if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_has_one_top_level_package_which_is_typed(files: list[str]) -> None:
    top_level = {name.split("/")[0] for name in files}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"voicemesh"}
    assert "voicemesh/py.typed" in files


def test_the_wheel_has_every_module_of_the_library_and_nothing_else(files: list[str]) -> None:
    library = ROOT / "components" / "voicemesh"
    modules = {str(path.relative_to(library.parent)) for path in library.rglob("*.py")}
    packed = {name for name in files if not name.split("/")[0].endswith(".dist-info")}
    assert packed == modules | {"voicemesh/py.typed"}


def test_the_wheel_carries_its_licence(files: list[str], metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in files)


def test_the_wheel_asks_for_pulumi_and_its_providers_only(
    metadata: email.message.Message,
) -> None:
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert {re.split(r"[<>=!~\[ ;]", r)[0] for r in required} == {
        "pulumi",
        "pulumi-aws",
        "pulumi-kubernetes",
        "pulumi-random",
    }


def test_a_clean_installation_brings_no_more_than_the_library_needs(
    installation: Installation, tmp_path: Path
) -> None:
    if not installation.with_dependencies:
        pytest.skip("neither the package index nor uv's cache has the locked dependencies")
    program = (
        "from importlib import metadata as m;"
        "print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    )
    listed = installation.run("-c", program, cwd=tmp_path).stdout.lower().replace("_", "-")
    installed = {entry for entry in listed.split() if not entry.startswith("voicemesh==")}
    assert installed <= set(locked_versions())
    assert {entry.partition("==")[0] for entry in installed} & HEAVY == set()


def test_the_installed_library_is_that_of_the_wheel(
    installation: Installation, tmp_path: Path
) -> None:
    program = (
        "import json, voicemesh, importlib.util as u;"
        "exported = [getattr(voicemesh, name) for name in voicemesh.__all__];"
        "strays = [n for n in ('infra', 'tests', 'speech_server') if u.find_spec(n)];"
        "print(json.dumps([voicemesh.__file__, len(exported), strays]))"
    )
    done = installation.run("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, exported, strays = json.loads(done.stdout)
    assert Path(file).is_relative_to(installation.python.parents[1])
    assert exported > 20
    assert strays == []


def test_the_installed_package_serves_its_schema_to_the_engine(
    installation: Installation, tmp_path: Path
) -> None:
    program = "import json; from voicemesh import package; print(json.dumps(package.schema()))"
    done = installation.run("-c", program, cwd=tmp_path)
    assert json.loads(done.stdout) == json.loads((ROOT / "schema.json").read_text())
