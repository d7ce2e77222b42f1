"""OCI archives, uncompressed: read faster than they could be unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_REFERENCE = "org.opencontainers.image.ref.name"
_VERSION = "org.opencontainers.image.version"


def write_archive(image: Path, references: Sequence[str], archive: Path) -> None:
    """Writes an image as an OCI archive, once for each of its references.

    The images differ in their version label alone and share their layers, so that a change of tag
    is a change of image, and costs a node nothing.

    Args:
        image: the image as buildah's `dir:` transport leaves it, with uncompressed layers.
        references: full references, each with a tag.
        archive: the file to write.
    """
    manifest = json.loads((image / "manifest.json").read_bytes())
    config = json.loads((image / _hex(manifest["config"]["digest"])).read_bytes())
    index: list[dict[str, Any]] = []
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for reference in references:
            tagged = _with_version(config, reference.rpartition(":")[2])
            described = _add_json(tar, tagged, manifest["config"]["mediaType"])
            own = {key: value for key, value in manifest.items() if key != "annotations"}
            entry = _add_json(tar, own | {"config": described}, manifest["mediaType"])
            index.append(entry | {"annotations": {_REFERENCE: reference}})
        for digest in dict.fromkeys(layer["digest"] for layer in manifest["layers"]):
            _add_file(tar, _blob(digest), image / _hex(digest))
        whole = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": index}
        _add_bytes(tar, "index.json", json.dumps(whole).encode())
        _add_bytes(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())


def _with_version(config: dict[str, Any], version: str) -> dict[str, Any]:
    inner = config.get("config", {})
    return config | {"config": inner | {"Labels": inner.get("Labels", {}) | {_VERSION: version}}}


def _add_json(tar: tarfile.TarFile, content: object, media_type: str) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add_bytes(tar, _blob(digest), data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(member, file)


def _blob(digest: str) -> str:
    return f"blobs/sha256/{_hex(digest)}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
