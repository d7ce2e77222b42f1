"""The forwarder, between a real client and a real server on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from infra.local.forwarder import Target, listen, serve


@contextlib.asynccontextmanager
async def forwarding_to(port: int) -> AsyncIterator[int]:
    """A port that leads to another."""
    listener = listen(0)
    own = listener.getsockname()[1]
    task = asyncio.create_task(serve([(listener, Target(own, "127.0.0.1", port))]))
    try:
        yield own
    finally:
        task.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.wait(others), 10)


@contextlib.asynccontextmanager
async def connected_to(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def through(
    server: asyncio.Server,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server by way of the forwarder."""
    port = server.sockets[0].getsockname()[1]
    async with server, forwarding_to(port) as own, connected_to(own) as streams:
        yield streams


async def answer_when_all_was_said(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A server that waits for the end of the request before it answers."""
    said = await reader.read()
    writer.write(said.upper())
    await writer.drain()
    writer.close()


def test_the_end_of_a_request_reaches_the_server_and_its_answer_the_client() -> None:
    async def scenario() -> bytes:
        server = await asyncio.start_server(answer_when_all_was_said, "127.0.0.1", 0)
        async with through(server) as (reader, writer):
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(scenario()) == b"X" * 1_000_000


def test_each_piece_of_a_stream_arrives_while_the_next_is_not_yet_sent() -> None:
    async def scenario() -> None:
        may_go_on = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            del reader
            writer.write(b"first")
            await may_go_on.wait()
            writer.write(b"second")
            writer.close()

        server = await asyncio.start_server(stream, "127.0.0.1", 0)
        async with through(server) as (reader, _):
            assert await asyncio.wait_for(reader.read(100), 10) == b"first"
            may_go_on.set()
            assert await asyncio.wait_for(reader.read(100), 10) == b"second"

    asyncio.run(scenario())


def test_a_client_that_goes_away_ends_the_connection_to_the_server() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def wait_for_the_end(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            ended.set()
            writer.close()

        server = await asyncio.start_server(wait_for_the_end, "127.0.0.1", 0)
        async with through(server) as (_, writer):
            writer.transport.abort()
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(scenario())


def test_a_connection_is_ended_where_nothing_listens() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            nobody = free.getsockname()[1]
        async with forwarding_to(nobody) as port, connected_to(port) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(scenario())


def test_only_the_loopback_is_listened_on() -> None:
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_route_is_read_from_the_command_line() -> None:
    assert Target.parse("8443=10.245.0.11:30443") == Target(8443, "10.245.0.11", 30443)
