"""Weights of a model, from a folder into object storage, in the form that `ModelWeights` pins.

`Release.of` reads a folder and says what would be published; `publish` brings it there. Beside the
weights it puts `PROVENANCE.json` with their licence, and last of all `SHA256SUMS`: without that,
no server finds anything, so a publication that was interrupted is no publication.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from voicemesh.contract import WEIGHTS_MANIFEST

PROVENANCE: Final = "PROVENANCE.json"
_OWN: Final = {WEIGHTS_MANIFEST, PROVENANCE}
_DIGEST: Final = "sha256"
"""Key of the digest in the metadata that storage keeps with each object."""
_GIB: Final = 2**30
_NOT_FOUND: Final = {"404", "NoSuchKey", "NotFound"}
_THERE_ALREADY: Final = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}


class PublicationError(Exception):
    """Weights cannot be published; the message has a line for each reason."""


@dataclass(frozen=True)
class Release:
    """What is to be published.

    Attributes:
        folder: where the files are.
        files: size in bytes and SHA-256 of each, by its name relative to the folder.
        provenance: content of `PROVENANCE.json`.
    """

    folder: Path
    files: Mapping[str, tuple[int, str]]
    provenance: bytes

    @staticmethod
    def of(
        folder: Path,
        license_expression: str,
        source: str | None = None,
        read: Callable[[int], object] = lambda _: None,
    ) -> Release:
        """All files of a folder, but those whose name, or folder's name, begins with a dot.

        Args:
            folder: may have links to files, as downloads from model hubs do. If it has a
                `SHA256SUMS`, its files are held to that.
            license_expression: SPDX expression, as `Apache-2.0` or `LicenseRef-Acme`.
            source: where the weights are from, as a URL with a revision.
            read: is told how many bytes were read, chunk by chunk.

        Raises:
            PublicationError: the folder is empty, has broken links or files that differ from its
                own `SHA256SUMS`, or the licence is no SPDX expression.
        """
        try:
            spdx = canonicalize_license_expression(license_expression)
        except InvalidLicenseExpression as error:
            raise PublicationError(
                f"licence {license_expression!r}: {error}; give an SPDX expression, as Apache-2.0, "
                "or LicenseRef- and a name of your own (https://spdx.org/licenses)"
            ) from None
        names = file_names(folder)
        files = {
            name: ((folder / name).stat().st_size, _digest(folder / name, read)) for name in names
        }
        _require_as_listed(folder, files)
        provenance = {"license": spdx, **({"source": source} if source else {})}
        return Release(folder, files, json.dumps(provenance, indent=1).encode() + b"\n")

    @property
    def manifest(self) -> bytes:
        """Content of `SHA256SUMS`, as `sha256sum` writes it."""
        digests = {name: digest for name, (_, digest) in self.files.items()}
        digests[PROVENANCE] = hashlib.sha256(self.provenance).hexdigest()
        return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()

    @property
    def sha256(self) -> str:
        """Digest of `SHA256SUMS`: what a stack pins."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of everything that `SHA256SUMS` lists."""
        return sum(size for size, _ in self.files.values()) + len(self.provenance)

    @property
    def size_gib(self) -> float:
        """Disk that a pod needs for it, in GiB: rounded up to thousandths."""
        return math.ceil(self.size_bytes / _GIB * 1000) / 1000


def file_names(folder: Path) -> list[str]:
    """Names of the files that would be published, relative to the folder, sorted.

    Raises:
        PublicationError: there is none, or some have names or links that lead nowhere.
    """
    if not folder.is_dir():
        raise PublicationError(f"{folder} is no folder")
    names, faults = [], []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name in _OWN or any(part.startswith(".") for part in name.split("/")) or path.is_dir():
            continue
        if not path.is_file():
            faults.append(f"{name}: neither a file nor a link to one")
        elif "\\" in name or not name.isprintable() or name != name.strip():
            faults.append(f"{name!r}: a name that sha256sum writes in another way; rename it")
        names.append(name)
    if faults:
        raise PublicationError("\n".join(sorted(faults)))
    if not names:
        raise PublicationError(f"{folder} has no files")
    return sorted(names)


def publish(
    client: Any,
    release: Release,
    uri: str,
    sent: Callable[[int], object] = lambda _: None,
) -> bool:
    """Brings a release into object storage. What is there already is not sent again.

    Args:
        client: boto3's client of S3, or of what speaks its protocol.
        uri: common prefix of the objects, `s3://bucket/models/name/version/`.
        sent: is told how many bytes are there, piece by piece.

    Returns:
        Whether anything was missing.

    Raises:
        PublicationError: other weights are published there.
    """
    prefix = _Prefix(client, uri)
    found = prefix.read(WEIGHTS_MANIFEST)
    if found is not None and found != release.manifest:
        raise _occupied(uri, found, release)
    missing = [name for name, file in release.files.items() if not prefix.has(name, *file)]
    sent(sum(size for name, (size, _) in release.files.items() if name not in missing))
    if found is not None and not missing:
        return False
    for name in missing:
        prefix.upload(release.folder / name, name, release.files[name][1], sent)
    prefix.put(PROVENANCE, release.provenance)
    # Somebody else may have published there in the meantime.
    if found is None and not prefix.create(WEIGHTS_MANIFEST, release.manifest):
        found = prefix.read(WEIGHTS_MANIFEST)
        if found != release.manifest:
            raise _occupied(uri, found or b"", release)
    return True


def _occupied(uri: str, found: bytes, release: Release) -> PublicationError:
    return PublicationError(
        f"{uri} has other weights, whose SHA256SUMS has the digest "
        f"{hashlib.sha256(found).hexdigest()}, not {release.sha256}: what is published stays as it "
        "is, so give these a version of their own"
    )


class _Prefix:
    """The objects under `s3://bucket/prefix/`."""

    def __init__(self, client: Any, uri: str) -> None:
        parts = urlsplit(uri)
        self._client = client
        self._bucket = parts.netloc
        self._prefix = parts.path.lstrip("/")

    def _of(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is no such object."""
        try:
            return self._client.get_object(**self._of(name))["Body"].read()
        except ClientError as error:
            return _none_if(error, _NOT_FOUND)

    def has(self, name: str, size: int, digest: str) -> bool:
        """Whether an object is there that was uploaded with this content."""
        try:
            head = self._client.head_object(**self._of(name))
        except ClientError as error:
            return bool(_none_if(error, _NOT_FOUND))
        return head["ContentLength"] == size and head["Metadata"].get(_DIGEST) == digest

    def upload(self, path: Path, name: str, digest: str, sent: Callable[[int], object]) -> None:
        """Sends a file in parts, several at a time; the object is there when all of it is."""
        self._client.upload_file(
            str(path),
            **self._of(name),
            ExtraArgs={"Metadata": {_DIGEST: digest}},
            Callback=sent,
        )

    def put(self, name: str, content: bytes) -> None:
        """Makes or replaces an object."""
        self._client.put_object(**self._of(name), Body=content)

    def create(self, name: str, content: bytes) -> bool:
        """Makes an object; False where there is one already."""
        try:
            self._client.put_object(**self._of(name), Body=content, IfNoneMatch="*")
        except ClientError as error:
            return bool(_none_if(error, _THERE_ALREADY))
        return True


def _none_if(error: ClientError, codes: Iterable[str]) -> None:
    if error.response["Error"]["Code"] not in codes:
        raise error


def _digest(path: Path, read: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(4 * 2**20):
            digest.update(chunk)
            read(len(chunk))
    return digest.hexdigest()


def _require_as_listed(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Holds files to the `SHA256SUMS` that came with them, as a bundle's does."""
    listing = folder / WEIGHTS_MANIFEST
    if not listing.is_file():
        return
    lines = (line.partition(" ") for line in listing.read_text(encoding="utf-8").splitlines())
    listed = {rest[1:]: digest for digest, _, rest in lines}
    listed.pop(PROVENANCE, None)
    faults = [f"{name}: missing, but in {WEIGHTS_MANIFEST}" for name in listed.keys() - files]
    faults += [
        f"{name}: not in {WEIGHTS_MANIFEST}"
        if name not in listed
        else f"{name}: has the SHA-256 {digest}, but {WEIGHTS_MANIFEST} says {listed[name]}"
        for name, (_, digest) in files.items()
        if listed.get(name) != digest
    ]
    if faults:
        raise PublicationError("\n".join(sorted(faults)))
