"""The lock files that the images are installed from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
IMAGE, GLM_TTS, TESTED = (
    "requirements.lock",
    "requirements-glm-tts.lock",
    "../requirements-engine.lock",
)


def _pinned(path: str) -> dict[str, str]:
    lock = (PROJECT / path).read_text()
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+) \\$", lock, re.MULTILINE))


@pytest.mark.parametrize(("path", "extras"), [(IMAGE, []), (GLM_TTS, ["glm-tts", "glm-tts-exact"])])
def test_every_dependency_of_an_image_is_pinned(path: str, extras: list[str]) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    declared = [*project["dependencies"], *(it for extra in extras for it in optional[extra])]
    names = {re.split(r"[<>=\[;]", dependency)[0] for dependency in declared}
    assert names <= _pinned(path).keys()


@pytest.mark.parametrize("other", [IMAGE, TESTED])
def test_the_image_of_glm_tts_has_what_it_is_built_on_and_what_was_tested(other: str) -> None:
    ours, others = _pinned(GLM_TTS), _pinned(other)
    assert {name: ours[name] for name in ours.keys() & others.keys()} == {
        name: others[name] for name in ours.keys() & others.keys()
    }
    less, more = (others, ours) if other == IMAGE else (ours, others)
    assert less.keys() <= more.keys()


@pytest.mark.parametrize("path", [IMAGE, GLM_TTS, TESTED])
def test_every_pin_has_a_hash_and_nothing_has_an_address(path: str) -> None:
    lock = (PROJECT / path).read_text()
    blocks = re.split(r"\n(?=\S)", lock.strip())
    assert len(blocks) == lock.count("==")
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock
