"""`python -m speech_server.weights`: an engine's weights, from object storage to a local disk.

Beside the objects lies `SHA256SUMS`, as `sha256sum` writes it. Its own digest is given, so nothing
is kept but what somebody has pinned: an object gets its name on the disk when all of it is there
and has its digest. What is there already, whole or in part, is not fetched again.

Objects are read one after the other, each from its beginning to its end, in ranges of which several
are on their way at once: one connection to S3 gives a tenth of what a node with GPUs can take
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html). How
to reach the storage, and as whom, is taken from the usual `AWS_*` variables.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from speech_server.contract import WEIGHTS_MANIFEST

PARALLEL_READS: Final = 16
RANGE: Final = 8 * 2**20
"""Bytes that one request asks for; all that are on their way are kept in memory."""
MANIFEST_LIMIT: Final = 4 * 2**20
CHUNK: Final = 2**20
RANGE_ATTEMPTS: Final = 5
PROGRESS_SECONDS: Final = 10
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


def _last(end: int | None) -> str:
    return "" if end is None else str(end - 1)


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

    def read(self, name: str, start: int = 0, end: int | None = None) -> Any:
        """The object's bytes from `start` on, and before `end`, as a stream."""
        wanted = {} if (start, end) == (0, None) else {"Range": f"bytes={start}-{_last(end)}"}
        return self._ask("get_object", name, **wanted)["Body"]

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
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        sizes = dict(zip(entries, pool.map(lambda it: bucket.size(it.name), entries), strict=True))
        total = sum(sizes.values())
        if total > limit_bytes:
            raise WeightsError(
                f"{bucket.uri('')} has {total / _GIB:.2f} GiB of weights, but only "
                f"{limit_bytes / _GIB:.2f} GiB of disk are set aside for them"
            )
        _forget_other_parts(folder, entries)
        missing = [
            _Missing(entry, sizes[entry], folder)
            for entry in entries
            if not _is_there(entry, folder)
        ]
        ranges = [wanted for one in missing for wanted in one.ranges()]
        contents = _read_ahead(pool, bucket, ranges)
        try:
            for one in missing:
                one.complete(bucket, contents)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
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


def _is_there(entry: Entry, folder: Path) -> bool:
    there = (folder / PurePosixPath(entry.name)).exists()
    if there:
        _logger.info("%s is there already", entry.name)
    return there


@dataclass(frozen=True)
class _Range:
    """A part of an object."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class _Missing:
    """An object of which the folder has nothing, or only how it begins."""

    entry: Entry
    size: int
    folder: Path

    @property
    def part(self) -> Path:
        return self.folder / _PARTS / self.entry.part

    def ranges(self) -> list[_Range]:
        """What is still to be read, in order."""
        begun = self.part.stat().st_size if self.part.exists() else 0
        starts = range(begun, self.size, RANGE)
        return [_Range(self.entry.name, it, min(it + RANGE, self.size)) for it in starts]

    def complete(self, bucket: Bucket, contents: Iterator[bytearray]) -> None:
        """Takes the ranges' contents, and gives the object its name if it has its digest."""
        started = time.monotonic()
        digest = self._gather(contents)
        try:
            _require_digest(bucket.uri(self.entry.name), digest, self.entry.sha256)
        except WeightsError:
            self.part.unlink()
            raise
        target = self.folder / PurePosixPath(self.entry.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.part.rename(target)
        gib, seconds = self.size / _GIB, time.monotonic() - started
        _logger.info("%s: %.3f GiB verified after %.1f s", self.entry.name, gib, seconds)

    def _gather(self, contents: Iterator[bytearray]) -> str:
        """Writes what is still missing; returns the digest of all of it."""
        digest, told = hashlib.sha256(), time.monotonic()
        count = len(self.ranges())
        with self.part.open("a+b") as file:
            file.seek(0)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
            for content in itertools.islice(contents, count):
                digest.update(content)
                file.write(content)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    have, gib = file.tell() / _GIB, self.size / _GIB
                    _logger.info("%s: %.2f of %.2f GiB", self.entry.name, have, gib)
        return digest.hexdigest()


def _read_ahead(
    pool: ThreadPoolExecutor, bucket: Bucket, ranges: Iterable[_Range]
) -> Iterator[bytearray]:
    """The contents of ranges in their order, each read before it is asked for."""
    on_their_way: deque[Future[bytearray]] = deque()
    for wanted in ranges:
        on_their_way.append(pool.submit(_read_range, bucket, wanted))
        if len(on_their_way) == PARALLEL_READS:
            yield on_their_way.popleft().result()
    while on_their_way:
        yield on_their_way.popleft().result()


def _read_range(bucket: Bucket, wanted: _Range) -> bytearray:
    content = bytearray()
    for attempt in range(1, RANGE_ATTEMPTS + 1):
        position = wanted.start + len(content)
        try:
            stream = bucket.read(wanted.name, position, wanted.end)
            while chunk := stream.read(CHUNK):
                content += chunk
            break
        except _BROKEN_STREAM as error:
            position = wanted.start + len(content)
            if attempt == RANGE_ATTEMPTS:
                raise WeightsError(f"{bucket.uri(wanted.name)}: {error}") from error
            _logger.warning("%s: %s; going on at byte %d", wanted.name, error, position)
            time.sleep(attempt)
    return content


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
        max_pool_connections=PARALLEL_READS,
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
