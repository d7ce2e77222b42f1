"""What `import voicemesh` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest

import voicemesh


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


def test_a_component_loads_only_the_sdk_that_it_uses() -> None:
    loaded = _modules_loaded_by("from voicemesh import TenantNamespace")
    assert "pulumi_kubernetes" in loaded
    assert "pulumi_aws" not in loaded


def test_arguments_of_a_voice_load_no_provider() -> None:
    assert "pulumi_kubernetes" not in _modules_loaded_by("from voicemesh import VoiceVariant")


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
