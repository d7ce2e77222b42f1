"""`python -m speech_server.weights`: an engine's weights, from object storage to a local disk.

Beside the objects lies `SHA256SUMS`, as `sha256sum` writes it. Its own digest is given, so nothing
is kept but what somebody has pinned: an object gets its name on the disk when all of it is there
and has its digest. What is there already, whole or in part, is not fetched again.

Objects are read from beginning to end, several at once: storage over a network is fast in that
order only, unlike an engine that maps a file. How to reach the storage, and as whom, is taken from
the usual `AWS_*` variables.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from speech_server.contract import WEIGHTS_MANIFEST

PARALLEL_OBJECTS: Final = 4
MANIFEST_LIMIT: Final = 4 * 2**20
CHUNK: Final = 4 * 2**20
STREAM_ATTEMPTS: Final = 5
_GIB: Final = 2**30
_PARTS: Final = ".incomplete"
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
_BROKEN_STREAM: Final = (HTTPClientError, IncompleteReadError)

_logger = logging.getLogger("weights")


class WeightsError(Exception):
    """The weights cannot be had as they were pinned; the message names the object."""


@dataclass(frozen=True)
class Entry:
    """A line of the manifest."""

    name: str
    sha256: str

    @property
    def part(self) -> str:
        """Name of the file in which it gathers; another object of the same content has another."""
        return hashlib.sha256(f"{self.sha256} {self.name}".encode()).hexdigest()


def parse_manifest(text: str) -> tuple[Entry, ...]:
    """The objects that a manifest lists.

    Raises:
        WeightsError: a line is not as `sha256sum` writes it, a name is there twice, or one would
            leave the folder.
    """
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or not _stays_inside(match[2]):
            raise WeightsError(
                f"{WEIGHTS_MANIFEST}, line {number}: {line!r} is not a digest, two spaces and a "
                "relative name, as `sha256sum` writes them"
            )
        if match[2] in entries:
            raise WeightsError(f"{WEIGHTS_MANIFEST}, line {number}: {match[2]} is there twice")
        entries[match[2]] = Entry(match[2], match[1])
    if not entries:
        raise WeightsError(f"{WEIGHTS_MANIFEST} lists nothing")
    return tuple(entries.values())


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return not {"", ".", "..", _PARTS} & {*parts} and "\\" not in name


class Bucket:
    """The objects under a prefix, `s3://bucket/prefix/`."""

    def __init__(self, client: Any, uri: str) -> None:
        parts = urlsplit(uri)
        self._client = client
        self._bucket = parts.netloc
        self._prefix = parts.path.lstrip("/")
        self._uri = uri

    def uri(self, name: str) -> str:
        """The full address of an object."""
        return f"{self._uri}{name}"

    def size(self, name: str) -> int:
        """Size of an object in bytes."""
        return self._ask("head_object", name)["ContentLength"]

    def read(self, name: str, start: int = 0) -> Any:
        """The object's bytes from `start` on, as a stream."""
        return self._ask("get_object", name, **({"Range": f"bytes={start}-"} if start else {}))[
            "Body"
        ]

    def _ask(self, operation: str, name: str, **more: str) -> dict[str, Any]:
        try:
            return getattr(self._client, operation)(
                Bucket=self._bucket, Key=f"{self._prefix}{name}", **more
            )
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, _BROKEN_STREAM):
                raise
            raise WeightsError(f"{self.uri(name)}: {error}") from error


def fetch(bucket: Bucket, manifest_sha256: str, folder: Path, limit_bytes: int) -> int:
    """Brings everything that the manifest lists into a folder, and returns its size in bytes.

    Raises:
        WeightsError: something is missing, has another digest, or all of it is larger than allowed.
    """
    entries = parse_manifest(_manifest(bucket, manifest_sha256))
    with ThreadPoolExecutor(PARALLEL_OBJECTS) as pool:
        sizes = dict(zip(entries, pool.map(lambda it: bucket.size(it.name), entries), strict=True))
        total = sum(sizes.values())
        if total > limit_bytes:
            raise WeightsError(
                f"{bucket.uri('')} has {total / _GIB:.2f} GiB of weights, but only "
                f"{limit_bytes / _GIB:.2f} GiB of disk are set aside for them"
            )
        _forget_other_parts(folder, entries)
        list(pool.map(lambda it: _fetch_object(bucket, it, sizes[it], folder), entries))
    return total


def _manifest(bucket: Bucket, sha256: str) -> str:
    content = bucket.read(WEIGHTS_MANIFEST).read(MANIFEST_LIMIT)
    _require_digest(bucket.uri(WEIGHTS_MANIFEST), hashlib.sha256(content).hexdigest(), sha256)
    return content.decode(errors="replace")


def _forget_other_parts(folder: Path, entries: Iterable[Entry]) -> None:
    (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    wanted = {entry.part for entry in entries}
    for part in (folder / _PARTS).iterdir():
        if part.name not in wanted:
            part.unlink()


def _fetch_object(bucket: Bucket, entry: Entry, size: int, folder: Path) -> None:
    target = folder / PurePosixPath(entry.name)
    if target.exists():
        _logger.info("%s is there already", entry.name)
        return
    started = time.monotonic()
    part = folder / _PARTS / entry.part
    digest = _complete(bucket, entry, size, part)
    try:
        _require_digest(bucket.uri(entry.name), digest, entry.sha256)
    except WeightsError:
        part.unlink()
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)
    seconds = time.monotonic() - started
    _logger.info("%s: %.3f GiB verified after %.1f s", entry.name, size / _GIB, seconds)


def _complete(bucket: Bucket, entry: Entry, size: int, part: Path) -> str:
    """Fetches what is missing of an object, and returns the digest of all of it."""
    digest = hashlib.sha256()
    with part.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
        for attempt in range(1, STREAM_ATTEMPTS + 1):
            try:
                if file.tell() < size:
                    _append(bucket.read(entry.name, file.tell()), file, digest)
                break
            except _BROKEN_STREAM as error:
                if attempt == STREAM_ATTEMPTS:
                    raise WeightsError(f"{bucket.uri(entry.name)}: {error}") from error
                _logger.warning("%s: %s; going on at byte %d", entry.name, error, file.tell())
                time.sleep(attempt)
    return digest.hexdigest()


def _append(stream: Any, file: Any, digest: Any) -> None:
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        file.write(chunk)


def _require_digest(uri: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise WeightsError(f"{uri} has the SHA-256 {found}, but {wanted} was pinned")


def connect() -> Any:
    """A client of the object storage that the environment's `AWS_*` variables name."""
    # Only AWS itself has a host name for each bucket.
    elsewhere = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys()
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=PARALLEL_OBJECTS,
        # The proxy of the mesh, and credentials, may be there a little later than this process.
        retries={"mode": "standard", "total_max_attempts": 8},
        s3={"addressing_style": "path" if elsewhere else "auto"},
        response_checksum_validation="when_required",
    )
    return botocore.session.get_session().create_client("s3", config=config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what the command line names; the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m speech_server.weights")
    parser.add_argument("uri", help="common prefix of the objects: s3://bucket/prefix/")
    parser.add_argument("--sha256", required=True, help=f"digest of {WEIGHTS_MANIFEST}")
    parser.add_argument("--size-gib", type=float, required=True, help="disk set aside, in GiB")
    parser.add_argument("--folder", type=Path, required=True, help="where to put them")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        limit = round(args.size_gib * _GIB)
        total = fetch(Bucket(connect(), args.uri), args.sha256, args.folder, limit)
    except (WeightsError, BotoCoreError, OSError) as error:
        print(f"no weights: {error}", file=sys.stderr)
        return 1
    _logger.info("%.3f GiB of %s are in %s", total / _GIB, args.uri, args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
