"""What `import voicemesh` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest

import voicemesh
from voicemesh import package

SDKS = {"pulumi_aws", "pulumi_kubernetes", "pulumi_random"}


def test_every_exported_name_exists_and_is_the_one_declared_for_type_checkers() -> None:
    for name in voicemesh.__all__:
        assert getattr(voicemesh, name).__name__ == name
    declared = set(voicemesh._MODULES)
    assert declared == set(voicemesh.__all__) == set(_names_for_type_checkers())


def test_a_name_that_is_not_exported_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TtsVoice'"):
        voicemesh.TtsVoice  # noqa: B018


@pytest.mark.parametrize("module", ["voicemesh", "voicemesh.contract"])
def test_importing_the_package_or_its_contract_loads_no_sdk(module: str) -> None:
    assert "pulumi" not in _modules_loaded_by(f"import {module}")


@pytest.mark.parametrize("component", ["GpuCluster", "GpuNodeGroup", "ImageRegistry"])
def test_what_aws_is_made_of_needs_no_kubernetes(component: str) -> None:
    loaded = _modules_loaded_by(f"from voicemesh import {component}")
    assert loaded & SDKS == {"pulumi_aws"}


@pytest.mark.parametrize(
    "component",
    ["ClusterAddons", "IstioMesh", "PublicGateway", "TenantNamespace", "TtsVoiceService"],
)
def test_what_the_cluster_is_told_needs_no_aws(component: str) -> None:
    loaded = _modules_loaded_by(f"from voicemesh import {component}")
    assert loaded & SDKS == {"pulumi_kubernetes"}


@pytest.mark.parametrize(
    "name", ["GpuClusterArgs", "GpuNodeGroupArgs", "TtsVoiceServiceArgs", "VoiceVariant"]
)
def test_large_arguments_load_no_provider(name: str) -> None:
    assert _modules_loaded_by(f"from voicemesh import {name}") & SDKS == set()


def test_every_component_takes_frozen_arguments_of_its_own_name() -> None:
    for component in package.components():
        arguments = package.arguments_class(component)
        assert arguments.__name__ == f"{component.__name__}Args"
        assert getattr(voicemesh, arguments.__name__) is arguments
        assert arguments.__dataclass_params__.frozen


def test_every_class_in_the_arguments_is_exported() -> None:
    assert [c for c in package._nested_classes() if c.__name__ not in voicemesh.__all__] == []


def _modules_loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def _names_for_type_checkers() -> list[str]:
    source = typing.cast(str, voicemesh.__file__)
    with open(source) as file:
        block = file.read().split("if TYPE_CHECKING:")[1].split("__all__")[0]
    imported = block.replace("(", " ").replace(")", " ").replace(",", " ")
    return [word for word in imported.split() if word[0].isupper()]
