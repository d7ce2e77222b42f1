"""An HTTP server that answers as each request asks it to, and remembers what it saw.

It stands in for the speech server where a test needs streams of a chosen length, or failures: it is
deployed by `TtsVoiceService` like any voice. Standard library alone, so that tests import it too.

A request says in the header `x-script` or the query's `script` what it gets, as a JSON object of
the fields of `Script`. Without one, a GET of `/healthz`, `/readyz` or `/metrics` is answered as the
speech server would, and anything else with a JSON report of what reached the server. Every answer
has the headers `x-pod` and `x-variant`.

The admin port is on the pod's loopback, which no sidecar redirects:

- `GET /seen`, `GET /seen?probe=TAG`: the last requests, those with the header `x-probe: TAG`;
- `GET /counts`: how many there were, by tag; how many are open, and were at the most;
- `POST /forget`: what was seen is forgotten;
- `POST /state` with `{"script": {...} | null, "ready": true}`: a script for all requests whatever
  they ask for, and the answer of `/readyz`.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

PORT: Final = 8080
ADMIN_PORT: Final = 9000
SCRIPT_HEADER: Final = "x-script"
SCRIPT_QUERY: Final = "script"
PROBE_HEADER: Final = "x-probe"
POD_HEADER: Final = "x-pod"
VARIANT_HEADER: Final = "x-variant"

_OPERATIONS: Final = ("/healthz", "/readyz", "/metrics")
_KEPT_REQUESTS: Final = 2_000
_LARGEST_HEAD_BYTES: Final = 65_536
_READ_BYTES: Final = 65_536
_WEBSOCKET_KEY: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10

Headers = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Script:
    """What one request gets."""

    status: int = 200
    """Status of the answer."""

    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further headers of the answer, such as `retry-after`."""

    chunks: int | None = None
    """Chunks of the body, each as `chunk_bytes` makes it; None for the JSON report."""

    size: int = 1024
    """Bytes of a chunk, 16 at least."""

    pause_ms: float = 0
    """From the beginning of one chunk to that of the next."""

    head_ms: float = 0
    """Pause before the head of the answer."""

    first_ms: float = 0
    """Pause between the head and the first chunk."""

    gaps: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Further pauses in milliseconds, by the number of the chunk that they come before."""

    length: int | None = None
    """What `content-length` says; None for chunked transfer."""

    until_close: bool = False
    """Whether the body has neither a length nor chunks: it ends with its connection."""

    sse: bool = False
    """Whether chunks are server-sent events, as `event_bytes` makes them."""

    echo: bool = False
    """Whether the body is the request's own, each part sent back as it arrives."""

    reset: bool = False
    """Whether the connection is reset instead of an answer, once the request is read."""

    end: str = "complete"
    """How the body ends: `complete`, `truncate` (closed before its end) or `reset`."""

    hang: bool = False
    """Whether no answer ever comes."""

    @property
    def is_chunked(self) -> bool:
        return self.length is None and not self.until_close


def chunk_bytes(number: int, size: int) -> bytes:
    """The content of a chunk: its number, and bytes that depend on it."""
    label = f"<{number:012d}>".encode()
    filler = bytes((number + offset) % 251 for offset in range(251))
    return (label + filler * (size // len(filler) + 1))[:size]


def event_bytes(number: int, size: int) -> bytes:
    """A server-sent event of this number whose data has `size` characters."""
    return f"id: {number}\ndata: {str(number % 10) * size}\n\n".encode()


def body_bytes(script: Script) -> bytes:
    """The whole body of an answer by a script that has `chunks`."""
    make = event_bytes if script.sse else chunk_bytes
    return b"".join(make(number, script.size) for number in range(script.chunks or 0))


@dataclasses.dataclass
class Seen:
    """A request, from its head on. Times are the machine's monotonic clock, in seconds."""

    method: str
    path: str
    headers: Headers
    started: float
    probe: str = ""
    body_bytes: int = 0
    body_sha256: str = ""
    body_arrivals: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    status: int | None = None
    sent_chunks: int = 0
    ended: float | None = None
    outcome: str = "open"
    """`open`, `complete`, `aborted` (the caller left), `truncated` or `reset`."""


class State:
    """What all connections share."""

    def __init__(self) -> None:
        self.pod = os.environ.get("HOSTNAME", socket.gethostname())
        # A pod is named SERVICE-VARIANT-REPLICASET-RANDOM.
        self.variant = self.pod.rsplit("-", 2)[0].rpartition("-")[2]
        self.script: Script | None = None
        self.ready = True
        self.draining = False
        self.forget()

    def forget(self) -> None:
        self.seen: collections.deque[Seen] = collections.deque(maxlen=_KEPT_REQUESTS)
        self.counts: collections.Counter[str] = collections.Counter()
        self.open = getattr(self, "open", 0)
        self.most_open = self.open

    @contextlib.contextmanager
    def request(self, seen: Seen) -> Any:
        self.seen.append(seen)
        self.counts[seen.probe] += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            seen.outcome = "aborted"
            raise
        finally:
            self.open -= 1
            seen.ended = time.monotonic()


class WatchedConnection(asyncio.StreamReaderProtocol):
    """Tells when the caller leaves, without taking anything from what it has sent."""

    def __init__(self, state: State) -> None:
        self._left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Connection(state, reader, writer, self._left).serve()

        super().__init__(asyncio.StreamReader(_LARGEST_HEAD_BYTES), serve)

    def eof_received(self) -> bool | None:
        self._left.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left.set()
        super().connection_lost(exc)


class Connection:
    """One connection, with one request after the other."""

    def __init__(
        self,
        state: State,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: asyncio.Event,
    ) -> None:
        self._state = state
        self._reader = reader
        self._writer = writer
        self._left = left

    async def serve(self) -> None:
        """Answers until the caller closes, or the connection has been."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one():
                pass
        self._writer.close()

    async def _one(self) -> bool:
        request = await read_head(self._reader)
        if request is None:
            return False
        if request.path in _OPERATIONS and not {SCRIPT_HEADER, PROBE_HEADER} & set(request.headers):
            return await self._operations(request)
        try:
            script = self._state.script or script_of(request)
        except (ValueError, TypeError) as error:
            await self._whole(request, 400, {"error": f"script: {error}"})
            return False
        with self._state.request(request):
            try:
                return await self._answer(request, script)
            finally:
                request.outcome = "complete" if request.outcome == "open" else request.outcome

    async def _operations(self, request: Seen) -> bool:
        await _read_all(self._body(request))
        if request.path == "/metrics":
            await self._whole(request, 200, f"scripted_open_requests {self._state.open}\n")
        elif request.path == "/readyz" and not (self._state.ready and not self._state.draining):
            await self._whole(request, 503, {"status": "not ready"})
        else:
            await self._whole(request, 200, {"status": "ok", "pod": self._state.pod})
        return True

    async def _answer(self, request: Seen, script: Script) -> bool:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._websocket(request, script)
        if script.echo:
            return await self._echo(request, script)
        await _read_all(self._body(request))
        work = asyncio.create_task(self._scripted(request, script))
        left = asyncio.create_task(self._left.wait())
        try:
            await asyncio.wait({left, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ConnectionResetError("the caller left")
            return work.result()
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _scripted(self, request: Seen, script: Script) -> bool:
        await asyncio.sleep(script.head_ms / 1e3)
        if script.hang:
            await asyncio.Event().wait()
        if script.reset:
            return self._reset(request)
        request.status = script.status
        if script.chunks is None:
            await self._whole(request, script.status, self._report(request), script.headers)
            return True
        await self._stream(request, script)
        if script.end == "reset":
            return self._reset(request)
        if script.end == "truncate":
            request.outcome = "truncated"
            return False
        if script.is_chunked:
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return not script.until_close

    async def _stream(self, request: Seen, script: Script) -> None:
        self._write_head(script)
        if script.first_ms:
            await self._writer.drain()
            await asyncio.sleep(script.first_ms / 1e3)
        make = event_bytes if script.sse else chunk_bytes
        due = asyncio.get_running_loop().time()
        for number in range(script.chunks or 0):
            due += (script.pause_ms if number else 0) / 1e3
            due += float(script.gaps.get(str(number), 0)) / 1e3
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            self._write_part(make(number, script.size), script)
            await self._writer.drain()
            request.sent_chunks += 1
        await self._writer.drain()

    async def _echo(self, request: Seen, script: Script) -> bool:
        request.status = script.status
        self._write_head(script)
        async for part in self._body(request):
            self._write_part(part, script)
            await self._writer.drain()
            request.sent_chunks += 1
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    def _write_head(self, script: Script) -> None:
        kind = "text/event-stream" if script.sse else "application/octet-stream"
        framing = {"content-length": str(script.length)} if script.length is not None else {}
        if script.is_chunked:
            framing = {"transfer-encoding": "chunked"}
        self._write_status(script.status, {"content-type": kind, **framing, **script.headers})

    def _write_part(self, part: bytes, script: Script) -> None:
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        self._writer.write(chunk if script.is_chunked else part)

    def _reset(self, request: Seen) -> bool:
        request.outcome = "reset"
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        return False

    def _report(self, request: Seen) -> dict[str, Any]:
        return {
            "pod": self._state.pod,
            "variant": self._state.variant,
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "body_bytes": request.body_bytes,
            "body_sha256": request.body_sha256,
        }

    async def _whole(
        self,
        request: Seen,
        status: int,
        content: str | Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        kind = "text/plain; version=0.0.4" if isinstance(content, str) else "application/json"
        length = {"content-type": kind, "content-length": str(len(body))}
        self._write_status(status, {**length, **(headers or {})})
        if request.method != "HEAD":
            self._writer.write(body)
        await self._writer.drain()

    def _write_status(self, status: int, headers: Mapping[str, str]) -> None:
        ours = {POD_HEADER: self._state.pod, VARIANT_HEADER: self._state.variant}
        lines = [f"HTTP/1.1 {status} Scripted"]
        lines += [f"{name}: {value}" for name, value in {**ours, **headers}.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def _body(self, request: Seen) -> AsyncIterator[bytes]:
        digest = hashlib.sha256()
        async for part in body_parts(self._reader, request.headers):
            request.body_bytes += len(part)
            request.body_arrivals.append((time.monotonic(), len(part)))
            digest.update(part)
            yield part
        request.body_sha256 = digest.hexdigest()

    async def _websocket(self, request: Seen, script: Script) -> bool:
        key = request.headers.get("sec-websocket-key", "") + _WEBSOCKET_KEY
        accepted = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()  # noqa: S324
        request.status = 101
        self._write_status(
            101,
            {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": accepted},
        )
        await self._writer.drain()
        if script.chunks is not None:
            await self._send_messages(request, script)
        while True:
            opcode, payload = await read_frame(self._reader)
            if opcode == _CLOSE:
                self._writer.write(frame(_CLOSE, payload))
                await self._writer.drain()
                return False
            answer = _PONG if opcode == _PING else opcode
            self._writer.write(frame(answer, payload))
            await self._writer.drain()
            request.sent_chunks += 1

    async def _send_messages(self, request: Seen, script: Script) -> None:
        for number in range(script.chunks or 0):
            pause_ms = (script.pause_ms if number else 0) + float(script.gaps.get(str(number), 0))
            await asyncio.sleep(pause_ms / 1e3)
            self._writer.write(frame(_BINARY, chunk_bytes(number, script.size)))
            await self._writer.drain()
            request.sent_chunks += 1


def script_of(request: Seen) -> Script:
    """What a request asks for.

    Raises:
        ValueError: it is no JSON object.
        TypeError: it has a field that no script has.
    """
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
    text = request.headers.get(SCRIPT_HEADER) or next(iter(query.get(SCRIPT_QUERY, [])), "{}")
    return Script(**json.loads(text))


async def _read_all(parts: AsyncIterator[bytes]) -> None:
    async for _ in parts:
        pass


async def read_head(reader: asyncio.StreamReader) -> Seen | None:
    """The next request's head; None where the caller has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers: Headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Seen(method, path, headers, time.monotonic(), headers.get(PROBE_HEADER, ""))


async def body_parts(reader: asyncio.StreamReader, headers: Headers) -> AsyncIterator[bytes]:
    """A request's body as it arrives."""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return
    left = int(headers.get("content-length", "0"))
    while left:
        part = await reader.read(min(left, _READ_BYTES))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
        yield part


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next WebSocket frame: its opcode and payload, unmasked."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8), "big")
    mask = await reader.readexactly(4) if second & 0x80 else b"\0\0\0\0"
    payload = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """A WebSocket frame; clients give a mask of four bytes."""
    size = len(payload)
    flag = 0x80 if mask else 0
    if size < 126:
        head = bytes([0x80 | opcode, flag | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, flag | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, flag | 127]) + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
    return head + mask + masked


async def serve_admin(
    state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One request on the admin port."""
    request = await read_head(reader)
    if request is not None:
        body = b"".join([part async for part in body_parts(reader, request.headers)])
        answer = json.dumps(administered(state, request, body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
        await writer.drain()
    writer.close()


def administered(state: State, request: Seen, body: bytes) -> dict[str, Any]:
    """Does what a request on the admin port asks for, and what it is answered."""
    url = urllib.parse.urlsplit(request.path)
    if url.path == "/forget":
        state.forget()
    if url.path == "/state":
        wanted = json.loads(body)
        if "script" in wanted:
            state.script = None if wanted["script"] is None else Script(**wanted["script"])
        state.ready = wanted.get("ready", state.ready)
    about = {
        "pod": state.pod,
        "variant": state.variant,
        "ready": state.ready,
        "open": state.open,
        "most_open": state.most_open,
        "total": sum(state.counts.values()),
        "by_probe": dict(state.counts),
    }
    if url.path == "/seen":
        probe = next(iter(urllib.parse.parse_qs(url.query).get("probe", [])), None)
        kept = [seen for seen in state.seen if probe in (None, seen.probe)]
        about["requests"] = [dataclasses.asdict(seen) for seen in kept]
    return about


async def main() -> None:
    """Serves until SIGTERM, and then until the open requests have ended."""
    state = State()
    drained = asyncio.Event()
    drain_seconds = float(os.environ.get("SPEECH_DRAIN_SECONDS", "30"))

    async def administer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_admin(state, reader, writer)

    def drain() -> None:
        state.draining = True
        drained.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    everywhere = "0.0.0.0"  # noqa: S104  a pod's only way to be reached
    await loop.create_server(lambda: WatchedConnection(state), everywhere, PORT, backlog=1024)
    await asyncio.start_server(administer, "127.0.0.1", ADMIN_PORT)
    await drained.wait()
    until = loop.time() + drain_seconds
    while state.open and loop.time() < until:
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
