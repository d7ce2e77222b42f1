"""The images as archives in the cache, built where they are missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.local import debian, toolbox
from infra.local.errors import LocalEnvironmentError
from infra.local.images.base import base_key, make_base
from infra.local.images.build import build_image, export_image
from infra.local.images.catalogue import DEBIAN, IMAGES, Image
from infra.local.images.content import key_of
from infra.local.images.envoy import download_envoy, envoy_path
from infra.local.images.workshop import Workshop
from infra.local.paths import CACHE, LOGS
from infra.local.progress import Progress

_FOLDER = CACHE / "images"
_WORK_PREFIX = ".work-"
_KEPT = 2


def ensure_images(progress: Progress) -> dict[str, Path]:
    """Builds what is missing of the environment's images.

    Each is an OCI archive with uncompressed layers, under a key of what it is made of: its
    Containerfile, the files that this copies, and what it is built on. An archive is complete or
    absent; a build that is interrupted leaves nothing that runs, is mounted or is ever used. With
    everything there, no network is asked. The tools and Debian packages must be there already.

    Args:
        progress: told what is being built, for how long.

    Returns:
        The archive of each image by its name, to be loaded with `ctr images import`.

    Raises:
        LocalEnvironmentError: a tool is missing, or a build failed; shows the end of its log.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with _alone(progress):
        files = _files()
        archives = {image.name: _archive(image.name, key_of(image, files)) for image in IMAGES}
        if not all(archive.exists() for archive in archives.values()):
            _build_missing(files, archives, progress)
        for name, archive in archives.items():
            os.utime(archive)
            _forget_older(name)
        _forget_older(DEBIAN.name)
    return archives


def _files() -> dict[str, Path]:
    """Where each file of the build contexts is, or will be once it is made here."""
    known = {
        "base.tar": _archive(DEBIAN.name, base_key()),
        "envoy": envoy_path(),
        "envoy_bootstrap.json": toolbox.istio_bootstrap(),
    }
    wanted = {name for image in IMAGES for part in image.lineage for name in part.files}
    return known | {name: toolbox.binary(name) for name in sorted(wanted - known.keys())}


def _archive(name: str, key: str) -> Path:
    return _FOLDER / f"{name}-{key}.tar"


def _build_missing(
    files: Mapping[str, Path], archives: Mapping[str, Path], progress: Progress
) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    built: set[str] = set()
    try:
        with tempfile.TemporaryDirectory(dir=_FOLDER, prefix=_WORK_PREFIX) as work:
            for number, image in enumerate(IMAGES, start=1):
                if archives[image.name].exists():
                    continue
                workshop = Workshop(
                    folder=Path(work),
                    packages=debian.unpacked_roots(),
                    log=_new_log(image),
                    tick=_ticker(progress, number),
                )
                _make_files(workshop, image, files)
                for part in image.lineage:
                    if part.name not in built:
                        build_image(workshop, part, files)
                        built.add(part.name)
                with _complete_or_absent(archives[image.name], Path(work)) as archive:
                    export_image(workshop, image, archive)
    except OSError as error:
        raise LocalEnvironmentError(
            f"building images in {_FOLDER}: {error}",
            f"make room on the disk of {_FOLDER}, or set VOICEMESH_CACHE to a folder elsewhere",
        ) from error


def _make_files(workshop: Workshop, image: Image, files: Mapping[str, Path]) -> None:
    wanted = {name for part in image.lineage for name in part.files if not files[name].exists()}
    if "base.tar" in wanted:
        with _complete_or_absent(files["base.tar"], workshop.folder) as archive:
            make_base(archive, workshop)
    if "envoy" in wanted:
        download_envoy(workshop)


@contextmanager
def _complete_or_absent(path: Path, work: Path) -> Iterator[Path]:
    """A place to write a file, which gets its name only when all of it is there."""
    made = work / path.name
    yield made
    made.rename(path)


def _new_log(image: Image) -> Path:
    log = LOGS / f"image-{image.name}.log"
    log.unlink(missing_ok=True)
    return log


def _ticker(progress: Progress, number: int) -> Callable[[str], None]:
    started = time.monotonic()

    def tick(what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        progress(f"{number}/{len(IMAGES)} {what}, {minutes}:{seconds:02}")

    return tick


@contextmanager
def _alone(progress: Progress) -> Iterator[None]:
    """Holds the folder against other builds, and clears what killed ones left in it."""
    with (_FOLDER / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build on this machine")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in _FOLDER.glob(f"{_WORK_PREFIX}*"):
            shutil.rmtree(left)
        yield


def _forget_older(name: str) -> None:
    """Keeps the archives of a name that were used last, for checkouts that differ."""
    same = sorted(
        _FOLDER.glob(f"{name}-{'[0-9a-f]' * 16}.tar"),
        key=lambda archive: archive.stat().st_mtime,
        reverse=True,
    )
    for old in same[_KEPT:]:
        old.unlink()
