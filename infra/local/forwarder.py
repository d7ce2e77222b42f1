"""The way in from the machine: ports of its loopback that lead into the environment.

    python -m infra.local.forwarder NAMESPACE PORT=HOST:PORT ...

The sockets are opened in the machine's network; then the process moves to the network namespace
NAMESPACE, from where it connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

FORWARDER = "forwarder"
"""Name of the daemon that runs this."""

_CLONE_NEWNET = 0x40000000
_CONNECT_SECONDS = 5.0
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Target:
    """Where a port leads."""

    port: int
    host: str
    target_port: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """From `PORT=HOST:PORT`."""
        port, _, target = text.partition("=")
        host, _, target_port = target.rpartition(":")
        return cls(int(port), host, int(target_port))


def listen(port: int) -> socket.socket:
    """A socket on a port of the loopback."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


async def serve(routes: list[tuple[socket.socket, Target]]) -> None:
    """Forwards every connection until it is cancelled."""
    async with contextlib.AsyncExitStack() as stack:
        for listener, target in routes:
            server = await asyncio.start_server(_forwarding_to(target), sock=listener)
            await stack.enter_async_context(server)
        await asyncio.Event().wait()


_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


def _forwarding_to(target: Target) -> _Handler:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.wait_for(
                asyncio.open_connection(target.host, target.target_port), _CONNECT_SECONDS
            )
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except OSError:
            # One side broke off: so must the other, or it would wait for ever.
            writer.transport.abort()
            far_writer.transport.abort()
        finally:
            for end in (writer, far_writer):
                end.close()

    return forward


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(handle, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), namespace)
    os.close(handle)


def main(namespace: str, *targets: str) -> None:
    routes = [(listen(target.port), target) for target in map(Target.parse, targets)]
    _enter(namespace)
    asyncio.run(serve(routes))


if __name__ == "__main__":
    main(*sys.argv[1:])
