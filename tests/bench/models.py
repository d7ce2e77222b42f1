"""How fast weights come from object storage to a disk.

The storage is a server on the loopback that answers reads as S3 does, each connection at the pace
of one connection to S3. The fetching is the image's own, in a process of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from infra.local.paths import CHECKOUT

_GIB = 2**30
_SIZE = 2 * _GIB
_CONNECTION_BYTES_PER_SECOND = 90e6
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html"""
_PIECE = 2**20
_NAME = "weights.safetensors"

_ONE_BY_ONE = "weights.RANGE, weights.PARALLEL_READS = 2**40, 1; "


def figures() -> Iterator[tuple[str, str]]:
    """The same object twice, and how fast its digest alone can be had."""
    with (
        tempfile.TemporaryDirectory(dir=CHECKOUT / "build") as folder,
        _storage(Path(folder)) as (
            endpoint,
            sha256,
        ),
    ):
        began = time.perf_counter()
        with (Path(folder) / _NAME).open("rb") as file:
            hashlib.file_digest(file, "sha256")
        yield "SHA-256 alone", _pace(time.perf_counter() - began)
        for what, setting in (("on one connection", _ONE_BY_ONE), ("as the image does it", "")):
            target = Path(folder) / "fetched"
            began = time.perf_counter()
            _fetch(endpoint, sha256, target, setting)
            seconds = time.perf_counter() - began
            (target / _NAME).unlink()
            yield f"{_SIZE / _GIB:.0f} GiB fetched and verified, {what}", _pace(seconds)


def _pace(seconds: float) -> str:
    return f"{seconds:.1f} s, {_SIZE / seconds / 1e6:.0f} MB/s"


def _fetch(endpoint: str, sha256: str, folder: Path, setting: str) -> None:
    arguments = ["s3://bucket/models/", "--sha256", sha256, "--size-gib", "4", "--folder"]
    program = f"import sys; from speech_server import weights; {setting}sys.exit(weights.main())"
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    argv = [sys.executable, "-c", program, *arguments, str(folder)]
    subprocess.run(argv, env=environment, check=True, capture_output=True)


@contextmanager
def _storage(folder: Path) -> Iterator[tuple[str, str]]:
    """A file of random bytes behind a server; its address, and the digest of the manifest."""
    digest = hashlib.sha256()
    with (folder / _NAME).open("wb") as file:
        block = os.urandom(16 * _PIECE)
        for number in range(_SIZE // len(block)):
            content = number.to_bytes(16, "little") + block[16:]
            digest.update(content)
            file.write(content)
    manifest = f"{digest.hexdigest()}  {_NAME}\n".encode()
    (folder / "SHA256SUMS").write_bytes(manifest)
    handler = type("_Handler", (_Objects,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", hashlib.sha256(manifest).hexdigest()
        finally:
            server.shutdown()


class _Objects(BaseHTTPRequestHandler):
    """Reads of objects, whole or in ranges (RFC 9110, 14.2)."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        path, start, end = self._answer()
        began, sent = time.monotonic(), 0
        with path.open("rb") as file:
            while start + sent < end:
                count = min(_PIECE, end - start - sent)
                sent += os.sendfile(self.connection.fileno(), file.fileno(), start + sent, count)
                early = began + sent / _CONNECTION_BYTES_PER_SECOND - time.monotonic()
                time.sleep(max(0.0, early))

    def _answer(self) -> tuple[Path, int, int]:
        path = self.folder / self.path.rpartition("/")[2]
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        end = int(wanted[2]) + 1 if wanted and wanted[2] else size
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(end - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        self.wfile.flush()
        return path, start, end

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
