"""Building images with buildah, in a store that lives as long as the build."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from infra.local.commands import run_command
from infra.local.images.archive import write_archive
from infra.local.images.catalogue import Image
from infra.local.images.content import context_of
from infra.local.images.workshop import Workshop

# No image may come from anywhere but the store itself: a reference that is not in it is an error,
# never a question to a registry.
_POLICY = {
    "default": [{"type": "reject"}],
    "transports": {
        kind: {"": [{"type": "insecureAcceptAnything"}]} for kind in ("containers-storage", "dir")
    },
}
_REGISTRIES = "unqualified-search-registries = []\n"

_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_PIP_FOLDER = "/root/.config/pip"

# buildah run as root keeps a cache here, whatever its other folders; it gets one that goes with
# the build, in place of what the machine's own buildah or podman may have.
_BUILDAH_CACHE = Path("/var/lib/containers")
_WITH_OWN_CACHE = f'mount --bind "$1" {_BUILDAH_CACHE}; shift; exec "$@"'


def build_image(workshop: Workshop, image: Image, files: Mapping[str, Path]) -> None:
    """Builds an image into the workshop's store; what it is built on is there already.

    Args:
        workshop: where to build.
        image: the image.
        files: where the files of its build context are, by their names.

    Raises:
        LocalEnvironmentError: a step of its Containerfile failed; shows the log's end.
    """
    _buildah(
        workshop,
        f"building the image {image.name}",
        "build",
        *("--isolation", "chroot", "--pull-never", "--identity-label=false", "--timestamp", "0"),
        *_policy(workshop),
        *_pip_volume(workshop),
        *(["--build-arg", f"BASE={image.base.references[0]}"] if image.base else []),
        *("--file", str(image.containerfile), "--tag", image.references[0]),
        str(image.context or _staged(workshop, image, files)),
    )


def export_image(workshop: Workshop, image: Image, archive: Path) -> None:
    """Writes a built image as an OCI archive with all its references."""
    folder = workshop.folder / f"exported-{image.name}"
    _buildah(
        workshop,
        f"writing the image {image.name}",
        *("push", "--disable-compression", *_policy(workshop)),
        *(image.references[0], f"dir:{folder}"),
    )
    write_archive(folder, image.references, archive)
    shutil.rmtree(folder)


def pip_settings(listed: str) -> dict[str, str]:
    """The settings that reach a package index, from what `pip config list` prints.

    The environment has the last word, as it has in pip.
    """
    found = re.findall(r"^(global|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE)
    ordered = sorted(found, key=lambda setting: setting[0] == ":env:")
    return {
        name: value.replace("\\n", "\n    ")
        for _, name, value in ordered
        if name in (*_PIP_SETTINGS, "cert")
    }


def _buildah(workshop: Workshop, what: str, *arguments: str) -> None:
    folder = workshop.folder
    cache, temporary = folder / "cache", folder / "temporary"
    for each in (cache, temporary, _BUILDAH_CACHE):
        each.mkdir(exist_ok=True)
    try:
        workshop.run(
            [
                *("sh", "-ec", _WITH_OWN_CACHE, "sh", str(cache)),
                *("buildah", "--storage-driver", "overlay"),
                *("--root", str(folder / "store"), "--runroot", str(folder / "run")),
                *("--registries-conf", _written(workshop, "registries.conf", _REGISTRIES)),
                *arguments,
            ],
            what,
            environment={"TMPDIR": str(temporary), "CONTAINERS_CONF": os.devnull},
        )
    finally:
        with suppress(OSError):  # the machine's own is in use
            _BUILDAH_CACHE.rmdir()


def _policy(workshop: Workshop) -> list[str]:
    return ["--signature-policy", _written(workshop, "policy.json", json.dumps(_POLICY))]


def _pip_volume(workshop: Workshop) -> list[str]:
    """This machine's way to a package index, for as long as the build; no image keeps it."""
    settings = pip_settings(
        run_command([sys.executable, "-m", "pip", "config", "list"], "asking pip for its settings")
    )
    folder = workshop.folder / "pip"
    folder.mkdir(exist_ok=True)
    if bundle := settings.get("cert"):
        shutil.copyfile(bundle, folder / "ca.crt")
        settings["cert"] = f"{_PIP_FOLDER}/ca.crt"
    lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return ["--volume", f"{folder}:{_PIP_FOLDER}:ro"]


def _staged(workshop: Workshop, image: Image, files: Mapping[str, Path]) -> Path:
    """A folder with nothing but the files of a build context."""
    folder = workshop.folder / f"context-{image.name}"
    folder.mkdir()
    for name, path in context_of(image, files).items():
        try:
            (folder / name).hardlink_to(path.resolve())
        except OSError:
            shutil.copy2(path, folder / name)
    return folder


def _written(workshop: Workshop, name: str, content: str) -> str:
    path = workshop.folder / name
    path.write_text(content)
    return str(path)
