"""The key of an image: what goes into it, in sixteen digits."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.local.images.catalogue import Image
from infra.local.paths import CACHE

_BUILDER = "1"
"""Raised when the same content makes another image, so that what was built before is left."""


def key_of(image: Image, files: Mapping[str, Path]) -> str:
    """The key of an image and of everything that it is built on.

    Args:
        image: the image.
        files: where the files of its lineage's build contexts are, by their names.
    """
    content = [
        {
            "references": part.references,
            "containerfile": part.containerfile.read_text(),
            "files": {name: _identity(path) for name, path in context_of(part, files).items()},
        }
        for part in image.lineage
    ]
    return hashlib.sha256(json.dumps([_BUILDER, content]).encode()).hexdigest()[:16]


def context_of(image: Image, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files that an image's Containerfile may copy, by their names in its build context."""
    if image.context is None:
        return {name: files[name] for name in image.files}
    return {
        path.relative_to(image.context).as_posix(): path
        for source in copied_sources(image.containerfile.read_text())
        for path in _files_under(image.context, source)
    }


def copied_sources(containerfile: str) -> list[str]:
    """What a Containerfile takes from its build context, as its COPY and ADD lines name it."""
    sources: list[str] = []
    for line in containerfile.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() not in ("COPY", "ADD"):
            continue
        words = json.loads(rest) if rest.lstrip().startswith("[") else shlex.split(rest)
        if not any(word.startswith("--from=") for word in words):
            sources += [word for word in words if not word.startswith("--")][:-1]
    return sources


def _files_under(context: Path, source: str) -> Iterator[Path]:
    for match in sorted(context.glob(source.strip("/"))):
        inside = sorted(match.rglob("*")) if match.is_dir() else [match]
        yield from (path for path in inside if path.is_file() and "__pycache__" not in path.parts)


def _identity(path: Path) -> str:
    """What a file is: its place in the cache, whose folders never change, or its content."""
    resolved = path.resolve()
    if resolved.is_relative_to(CACHE):
        return resolved.relative_to(CACHE).as_posix()
    return hashlib.sha256(resolved.read_bytes()).hexdigest()
