"""The lock file that the image is installed from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
LOCK = (PROJECT / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9_.-]+)==(\S+) \\$", LOCK, re.MULTILINE))


def test_every_dependency_of_the_image_is_pinned() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=\[;]", dependency)[0] for dependency in declared}
    assert names <= PINNED.keys()


@pytest.mark.parametrize("path", ["requirements.lock", "../requirements-engine.lock"])
def test_every_pin_has_a_hash_and_nothing_has_an_address(path: str) -> None:
    lock = (PROJECT / path).read_text()
    blocks = re.split(r"\n(?=\S)", lock.strip())
    assert len(blocks) == lock.count("==")
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock
