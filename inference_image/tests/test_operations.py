"""What the platform asks of a server: alive, ready, counted, and gone without a loss."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inference_image.tests.conftest import StartServer
from inference_image.tests.scripted import (
    CHUNK_SECONDS,
    WAIT_SECONDS,
    ScriptedEngine,
    eventually,
)
from speech_server.server import serve
from speech_server.settings import Settings

LONG_TEXT = "A long text keeps a stream in flight until its reader has heard it all. " * 55


def test_a_server_is_alive_at_once_but_ready_only_after_a_synthesis(
    start: StartServer, engine: ScriptedEngine
) -> None:
    engine.warmed.clear()
    server = start()
    with server.client() as client:
        assert client.get("/healthz").status_code == 200
        early = client.get("/readyz")
        assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
        assert client.post("/tts", json={"input": "one"}).status_code == 503
        assert server.metric("voicemesh_ready") == 0
        engine.warmed.set()
        eventually(lambda: client.get("/readyz").status_code == 200, "it becomes ready")
        assert server.metric("voicemesh_ready") == 1


def test_a_server_whose_engine_cannot_warm_up_ends_with_an_error() -> None:
    engine = ScriptedEngine()
    engine.warm_up_error = OSError("no weights")
    assert asyncio.run(serve(Settings(host="127.0.0.1", port=0), engine)) == 1
    assert engine.is_closed


def test_a_served_request_is_measured(start: StartServer, engine: ScriptedEngine) -> None:
    engine.play_all()
    server = start()
    warm_up_seconds = server.metric("voicemesh_synthesis_seconds_total")
    with server.client() as client:
        client.post("/tts", json={"input": "one two three"})
    assert server.metric("voicemesh_speech_requests_total", outcome="served") == 1
    assert server.metric("voicemesh_first_audio_seconds_count") == 1
    assert server.metric("voicemesh_first_audio_seconds_sum") > 0
    assert server.metric("voicemesh_audio_seconds_total") == 3 * CHUNK_SECONDS
    assert server.metric("voicemesh_synthesis_seconds_total") > warm_up_seconds
    assert server.metric("voicemesh_characters_total") == len("one two three")


def test_a_refused_request_is_not_measured_as_synthesis(start: StartServer) -> None:
    server = start()
    with server.client() as client:
        client.post("/tts", json={"input": "😀"})
    assert server.metric("voicemesh_speech_requests_total", outcome="refused") == 1
    assert server.metric("voicemesh_first_audio_seconds_count") == 0
    assert server.metric("voicemesh_characters_total") == 0


def test_two_servers_in_one_process_count_apart(start: StartServer, engine: ScriptedEngine) -> None:
    engine.play_all()
    first, second = start(), start()
    with first.client() as client:
        client.post("/tts", json={"input": "one"})
    assert first.metric("voicemesh_speech_requests_total", outcome="served") == 1
    assert second.metric("voicemesh_speech_requests_total", outcome="served") == 0


def test_the_schema_of_the_service_names_both_paths(start: StartServer) -> None:
    with start().client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert paths.keys() == {"/v1/audio/speech", "/tts"}


class Process:
    """`python -m speech_server` as the image runs it, and one client in mid-stream."""

    def __init__(self, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        own = {f"SPEECH_{name.upper()}": value for name, value in settings.items()}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "speech_server"],
            env=os.environ | own | {"SPEECH_HOST": "127.0.0.1", "SPEECH_PORT": str(self.port)},
            cwd=Path(__file__).parent.parent,
            stderr=subprocess.DEVNULL,
        )

    def is_ready(self) -> bool:
        return self.ready_status() == 200

    def ready_status(self) -> int | None:
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return httpx.get(url, trust_env=False, timeout=WAIT_SECONDS).status_code
        except httpx.TransportError:
            return None

    def open_stream(self) -> http.client.HTTPResponse:
        """A stream whose client has taken the first bytes only; it is too long for buffers."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", self.port))
        body = json.dumps({"input": LONG_TEXT}).encode()
        with connection:
            connection.sendall(
                b"POST /tts HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            answer = http.client.HTTPResponse(connection)
            answer.begin()
        assert len(answer.read(4800)) == 4800
        return answer


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[Process]:
    process = Process(**request.param)
    try:
        eventually(process.is_ready, "the process is ready")
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.parametrize("process", [{"drain_seconds": "60"}], indirect=True)
def test_after_sigterm_streams_in_flight_are_finished(process: Process) -> None:
    stream = process.open_stream()
    process.popen.send_signal(signal.SIGTERM)
    eventually(lambda: process.ready_status() == 503, "it is not ready while it drains")
    assert process.popen.poll() is None
    rest = stream.read()
    assert len(rest) > 10_000_000, "the whole text was heard"
    assert process.popen.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("process", [{"drain_seconds": "0"}], indirect=True)
def test_streams_that_outlast_the_drain_are_broken_not_shortened(process: Process) -> None:
    stream = process.open_stream()
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(WAIT_SECONDS) == 0
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stream.read()


@pytest.mark.parametrize("process", [{"drain_seconds": "60"}], indirect=True)
def test_after_sigterm_it_stays_as_long_as_requests_come(process: Process) -> None:
    process.popen.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while time.monotonic() - began < 3:
        assert process.ready_status() == 503
    assert process.popen.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("process", [{"drain_seconds": "60"}], indirect=True)
def test_a_connection_that_nobody_uses_stays_open(process: Process) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=WAIT_SECONDS)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    assert connection.sock is not None
    # uvicorn's own five seconds are as long as some proxies wait before they use one again.
    closed, _, _ = select.select([connection.sock], [], [], 6)
    assert not closed
    connection.close()
