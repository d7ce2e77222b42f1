"""Sends requests, in a network made for it, and tells of each what arrived when.

    python -m tests.e2e.load < SPEC > ANSWERS

`SPEC` is a `Spec` as JSON, `ANSWERS` a JSON list of `Answer`. On SIGTERM it begins no further
request, and ends with the answers of those that it began. It needs the standard library alone, and
knows what went over the wire: which bytes came with which read, and whether an answer ended as
HTTP wants it. Times are the machine's monotonic clock, in seconds, as the scripted upstream's.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import itertools
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.e2e.scripted_upstream.server import frame

_KEPT_TEXT_BYTES: Final = 16_384
_CONNECT_SECONDS: Final = 10
_TEXT_FRAME, _BINARY_FRAME, _CLOSE_FRAME = 1, 2, 8


@dataclasses.dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        address: IP address.
        port: TCP port.
        host: name in SNI and Host.
        authority: PEM file of who signed the certificate; None for HTTP without TLS.
    """

    address: str
    port: int
    host: str
    authority: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, or several that are the same.

    Attributes:
        path: path and query, sent as they are, but for `{n}`: a number that no other request has.
        method: as HTTP names it.
        headers: in place of the usual ones where they have the same name.
        body: text of the body.
        body_parts: sizes of further parts of the body, which is then sent in chunks, unless a
            header states its length.
        body_pause_ms: pause before each of those.
        messages: sizes of messages on a WebSocket, which the request then opens; each is sent after
            `message_pause_ms`.
        message_pause_ms: pause before each message.
        awaited_messages: messages to receive before the WebSocket is closed.
        leave_after_bytes: leaves, with the connection, after so much of the body.
        leave_after_ms: leaves, with the connection, after so long.
        tag: comes back in the answer.
        count: how often it is sent.
    """

    path: str = "/v1/audio/speech"
    method: str = "POST"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: str = ""
    body_parts: Sequence[int] = ()
    body_pause_ms: float = 0
    messages: Sequence[int] = ()
    message_pause_ms: float = 0
    awaited_messages: int | None = None
    leave_after_bytes: int | None = None
    leave_after_ms: float | None = None
    tag: str = ""
    count: int = 1

    @property
    def states_length(self) -> bool:
        return any(name.lower() == "content-length" for name in self.headers)

    @property
    def is_websocket(self) -> bool:
        return bool(self.messages) or self.awaited_messages is not None


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to send.

    Attributes:
        target: where to.
        requests: in this order.
        concurrency: connections, each with one request at a time.
        per_second: requests begun in a second; None for as soon as a connection is free.
        seconds: repeats `requests` for this long; None for once.
        keep_alive: whether a connection serves more than one request.
        timeout_seconds: longest time for one request.
    """

    target: Target
    requests: Sequence[Request]
    concurrency: int = 1
    per_second: float | None = None
    seconds: float | None = None
    keep_alive: bool = True
    timeout_seconds: float = 60

    @classmethod
    def parse(cls, text: str) -> Spec:
        """From JSON."""
        fields = json.loads(text)
        fields["target"] = Target(**fields["target"])
        fields["requests"] = [Request(**each) for each in fields["requests"]]
        return cls(**fields)


@dataclasses.dataclass
class Answer:
    """What came of one request.

    Attributes:
        tag: the request's.
        started: when it was begun, its connection open.
        status: None where no head came.
        headers: of the answer, by names in lower case.
        head: when the head had come.
        arrivals: of each read with a part of the body, or of each message: when, and its bytes.
        size: bytes of the body.
        sha256: of the body.
        text: the body, if it is short; what is no UTF-8 in it as surrogates (PEP 383).
        ended: when it was over.
        outcome: `complete`; `truncated`, where a body ended too early; `closed`, where the
            connection ended before a head; `unconnected`, where there was none; `timeout`; `left`,
            where the request said so.
        error: what ended the connection, where anything did.
        connection: number of its connection.
        path: the request's, with its number.
    """

    tag: str
    started: float = 0.0
    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    head: float | None = None
    arrivals: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    size: int = 0
    sha256: str = ""
    text: str = ""
    ended: float = 0.0
    outcome: str = "timeout"
    error: str = ""
    connection: int = 0
    path: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is a whole 2xx."""
        return self.outcome == "complete" and 200 <= (self.status or 0) < 300

    @property
    def first_byte_seconds(self) -> float:
        """From its beginning to the first byte of the body, or to the head where there is none."""
        first = self.arrivals[0][0] if self.arrivals else self.head
        return (self.ended if first is None else first) - self.started

    @property
    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.text)


class Exchange:
    """An answer in the making."""

    def __init__(self, request: Request, connection: int) -> None:
        self.answer = Answer(request.tag, connection=connection, path=request.path)
        self.done = asyncio.Event()
        self.upgraded = asyncio.Event()
        self.arrived = asyncio.Event()
        self.keeps_connection = True
        self._request = request
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._kept = bytearray()
        self._read = self._read_head
        self._left: int | None = None

    def feed(self, data: bytes) -> None:
        """Takes what a read brought."""
        if self.done.is_set():
            self.keeps_connection = False
            return
        self._buffer += data
        before = self.answer.size
        while not self.done.is_set() and self._read():
            pass
        if self.answer.size > before and not self._request.is_websocket:
            self.answer.arrivals.append((time.monotonic(), self.answer.size - before))
        enough = self._request.leave_after_bytes
        if enough is not None and self.answer.size >= enough and not self.done.is_set():
            self.end("left")

    def lose(self, error: Exception | None) -> None:
        """Takes that the connection has ended."""
        self.answer.error = type(error).__name__ if error else "EOF"
        self.keeps_connection = False
        if self.done.is_set():
            return
        if self.answer.head is None:
            self.end("closed")
        elif self._read == self._read_to_the_end and error is None:
            self.end("complete")
        else:
            self.end("truncated")

    def end(self, outcome: str) -> None:
        """Closes the account."""
        self.answer.outcome = outcome
        self.answer.ended = time.monotonic()
        self.answer.sha256 = self._digest.hexdigest()
        if self.answer.size <= _KEPT_TEXT_BYTES:
            self.answer.text = self._kept.decode(errors="surrogateescape")
        self.keeps_connection = self.keeps_connection and outcome == "complete"
        self.done.set()

    def _read_head(self) -> bool:
        head, found, _ = bytes(self._buffer).partition(b"\r\n\r\n")
        if not found:
            return False
        del self._buffer[: len(head) + 4]
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1])
        if 100 <= status < 200 and status != 101:
            return True
        for name, _, value in (line.partition(":") for line in lines):
            self.answer.headers[name.strip().lower()] = value.strip()
        self.answer.status = status
        self.answer.head = time.monotonic()
        self._choose_framing(status)
        return True

    def _choose_framing(self, status: int) -> None:
        headers = self.answer.headers
        self.keeps_connection = "close" not in headers.get("connection", "").lower()
        if status == 101:
            self.keeps_connection = False
            self._read = self._read_frame
            self.upgraded.set()
        elif self._request.method == "HEAD" or status in (204, 304):
            self.end("complete")
        elif "chunked" in headers.get("transfer-encoding", ""):
            self._read = self._read_chunk_size
        elif "content-length" in headers:
            self._left = int(headers["content-length"])
            self._read = self._read_counted
            if not self._left:
                self.end("complete")
        else:
            self.keeps_connection = False
            self._read = self._read_to_the_end

    def _read_chunk_size(self) -> bool:
        line, found, _ = bytes(self._buffer[:64]).partition(b"\r\n")
        if not found:
            return False
        del self._buffer[: len(line) + 2]
        self._left = int(line.split(b";")[0], 16)
        self._read = self._read_chunk if self._left else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        assert self._left is not None
        if self._left:
            return self._take(self._left)
        if len(self._buffer) < 2:
            return False
        del self._buffer[:2]
        self._read = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        line, found, _ = bytes(self._buffer).partition(b"\r\n")
        if not found:
            return False
        del self._buffer[: len(line) + 2]
        if not line:
            self.end("complete")
        return True

    def _read_counted(self) -> bool:
        assert self._left is not None
        taken = self._take(self._left)
        if not self._left:
            self.end("complete")
        return taken

    def _read_to_the_end(self) -> bool:
        return self._take(len(self._buffer))

    def _read_frame(self) -> bool:
        if len(self._buffer) < 2:
            return False
        size, at = self._buffer[1] & 0x7F, 2
        if size in (126, 127):
            at += 2 if size == 126 else 8
            size = int.from_bytes(self._buffer[2:at], "big")
        if len(self._buffer) < at + size:
            return False
        opcode = self._buffer[0] & 0x0F
        del self._buffer[:at]
        if opcode == _CLOSE_FRAME:
            self.end("complete")
        elif opcode in (_TEXT_FRAME, _BINARY_FRAME):
            self._take(size)
            self.answer.arrivals.append((time.monotonic(), size))
            self.arrived.set()
        else:
            del self._buffer[:size]
        return True

    def _take(self, most: int) -> bool:
        part = bytes(self._buffer[:most])
        del self._buffer[: len(part)]
        self._digest.update(part)
        self.answer.size += len(part)
        if self._left is not None:
            self._left -= len(part)
        if len(self._kept) <= _KEPT_TEXT_BYTES:
            self._kept += part
        return bool(part)


class Wire(asyncio.Protocol):
    """A connection, with at most one request at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_open = False
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._exchange is not None:
            self._exchange.lose(exc)

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    async def send(self, request: Request, host: str, timeout_seconds: float) -> Answer:
        """One request and its answer."""
        assert self._transport is not None
        exchange = self._exchange = Exchange(request, self.number)
        exchange.answer.started = time.monotonic()
        sender = asyncio.create_task(self._write(request, host, exchange))
        leaves = request.leave_after_ms
        try:
            async with asyncio.timeout(timeout_seconds if leaves is None else leaves / 1e3):
                await exchange.done.wait()
        except TimeoutError:
            exchange.end("timeout" if leaves is None else "left")
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        self._exchange = None
        if not exchange.keeps_connection:
            self.close()
        return exchange.answer

    async def _write(self, request: Request, host: str, exchange: Exchange) -> None:
        assert self._transport is not None
        self._transport.write(head_of(request, host) + request.body.encode())
        for size in request.body_parts:
            await asyncio.sleep(request.body_pause_ms / 1e3)
            part = bytes(size)
            self._transport.write(part if request.states_length else b"%x\r\n%s\r\n" % (size, part))
        if request.body_parts and not request.states_length:
            self._transport.write(b"0\r\n\r\n")
        if request.is_websocket:
            await self._converse(request, exchange)

    async def _converse(self, request: Request, exchange: Exchange) -> None:
        assert self._transport is not None
        await exchange.upgraded.wait()
        for number, size in enumerate(request.messages):
            await asyncio.sleep(request.message_pause_ms / 1e3)
            payload = bytes((number + offset) % 256 for offset in range(size))
            self._transport.write(frame(_BINARY_FRAME, payload, os.urandom(4)))
        awaited = request.awaited_messages
        wanted = len(request.messages) if awaited is None else awaited
        while len(exchange.answer.arrivals) < wanted:
            exchange.arrived.clear()
            await exchange.arrived.wait()
        self._transport.write(frame(_CLOSE_FRAME, b"\x03\xe8", os.urandom(4)))


def head_of(request: Request, host: str) -> bytes:
    """A request's line and headers."""
    headers = {"host": host, "content-type": "application/json"}
    if request.is_websocket:
        key = base64.b64encode(os.urandom(16)).decode()
        headers |= {"upgrade": "websocket", "connection": "Upgrade"}
        headers |= {"sec-websocket-version": "13", "sec-websocket-key": key}
    elif request.body_parts and not request.states_length:
        headers["transfer-encoding"] = "chunked"
    elif request.body or request.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(request.body.encode()))
    headers |= {name.lower(): value for name, value in request.headers.items()}
    method = "GET" if request.is_websocket else request.method
    lines = [f"{method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class Load:
    """All requests of a spec."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._stopped = False
        self._answers: list[Answer] = []
        self._connections = itertools.count(1)
        self._context = _tls(spec.target)

    async def run(self) -> list[Answer]:
        """Sends them and returns all answers, in the order in which they ended."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        queue = self._due()
        await asyncio.gather(*(self._work(queue) for _ in range(self._spec.concurrency)))
        return self._answers

    def _stop(self) -> None:
        self._stopped = True

    def _due(self) -> Iterator[tuple[float, Request]]:
        began = time.monotonic()
        step = 1 / self._spec.per_second if self._spec.per_second else 0.0
        for number, request in enumerate(self._sequence(began)):
            path = request.path.replace("{n}", f"{os.getpid()}-{number}")
            yield began + number * step, dataclasses.replace(request, path=path)

    def _sequence(self, began: float) -> Iterator[Request]:
        once = [request for request in self._spec.requests for _ in range(request.count)]
        if self._spec.seconds is None:
            yield from once
            return
        until = began + self._spec.seconds
        for request in itertools.cycle(once):
            if time.monotonic() >= until:
                return
            yield request

    async def _work(self, queue: Iterator[tuple[float, Request]]) -> None:
        wire: Wire | None = None
        for due, request in queue:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._stopped:
                break
            if wire is None or not wire.is_open:
                wire = await self._connect(request)
            if wire is None:
                continue
            spec = self._spec
            self._answers.append(await wire.send(request, spec.target.host, spec.timeout_seconds))
            if not spec.keep_alive:
                wire.close()
        if wire is not None:
            wire.close()

    async def _connect(self, request: Request) -> Wire | None:
        """A new connection; None, with that for an answer, where there is none to be had."""
        target, started = self._spec.target, time.monotonic()
        number = next(self._connections)
        name = target.host if self._context else None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, wire = await asyncio.get_running_loop().create_connection(
                    lambda: Wire(number),
                    target.address,
                    target.port,
                    ssl=self._context,
                    server_hostname=name,
                )
        except (OSError, TimeoutError) as error:
            told = f"{type(error).__name__}: {error}"
            ended = time.monotonic()
            failed = Answer(request.tag, started, ended=ended, error=told, path=request.path)
            failed.outcome = "unconnected"
            self._answers.append(failed)
            return None
        return wire


def _tls(target: Target) -> ssl.SSLContext | None:
    return None if target.authority is None else ssl.create_default_context(cafile=target.authority)


def main() -> None:
    spec = Spec.parse(sys.stdin.read())
    answers = asyncio.run(Load(spec).run())
    json.dump([dataclasses.asdict(answer) for answer in answers], sys.stdout)


if __name__ == "__main__":
    main()
