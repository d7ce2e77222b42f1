"""The choice between a released Pulumi and ours, with stand-in executables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.local.released_pulumi import PROVIDERS, PulumiCommand, choose_pulumi

BUILT = Path("/cache/bin/pulumi")
ADAPTERS = Path("/checkout/adapters")


def choose(folder: Path, **environment: str) -> PulumiCommand:
    variables = {"PATH": f"{folder}/bin", "HOME": f"{folder}/home", **environment}
    return choose_pulumi(variables, BUILT, ADAPTERS)


def make_program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A machine with a released Pulumi, its language host and all plugins in its home."""
    make_program(tmp_path / "bin" / "pulumi")
    make_program(tmp_path / "bin" / "pulumi-language-python")
    for name in PROVIDERS:
        make_program(plugin(tmp_path, name))
    return tmp_path


def plugin(folder: Path, name: str) -> Path:
    return folder / f"home/.pulumi/plugins/resource-{name}-v7.0.0/pulumi-resource-{name}"


def test_a_released_pulumi_with_its_plugins_is_used_without_adapters(released: Path) -> None:
    chosen = choose(released)

    assert chosen.is_released
    assert chosen.argv == (str(released / "bin/pulumi"),)
    assert chosen.environment == {"PULUMI_HOME": f"{released}/home/.pulumi"}


def test_without_a_released_pulumi_ours_is_used_with_the_adapters_first(tmp_path: Path) -> None:
    chosen = choose(tmp_path)

    assert not chosen.is_released
    assert chosen.argv == (str(BUILT),)
    assert chosen.environment == {"PATH": f"{ADAPTERS}{os.pathsep}{tmp_path}/bin"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_released_pulumi_that_lacks_a_plugin_is_not_used(released: Path, name: str) -> None:
    plugin(released, name).unlink()

    assert not choose(released).is_released


def test_a_released_pulumi_without_the_python_language_host_is_not_used(released: Path) -> None:
    (released / "bin" / "pulumi-language-python").unlink()

    assert not choose(released).is_released


def test_a_plugin_that_cannot_be_executed_does_not_count(released: Path) -> None:
    plugin(released, "aws").chmod(0o644)

    assert not choose(released).is_released


def test_plugins_count_on_the_path_too(released: Path) -> None:
    plugin(released, "aws").unlink()
    make_program(released / "bin" / "pulumi-resource-aws")

    assert choose(released).is_released


def test_plugins_are_looked_for_in_the_home_that_the_user_chose(released: Path) -> None:
    (released / "home/.pulumi").rename(released / "elsewhere")

    assert not choose(released).is_released
    assert choose(released, PULUMI_HOME=f"{released}/elsewhere").is_released


def test_the_language_host_may_be_beside_a_pulumi_that_is_linked_to(released: Path) -> None:
    (released / "bin").rename(released / "opt")
    (released / "bin").mkdir()
    (released / "bin" / "pulumi").symlink_to(released / "opt" / "pulumi")

    assert choose(released).is_released
