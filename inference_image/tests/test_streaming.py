"""Audio leaves as it is made; what breaks is never taken for what ended."""

from __future__ import annotations

import http.client
import json
import socket

import httpx
import pytest

from inference_image.tests.conftest import StartServer
from inference_image.tests.scripted import (
    CHUNK_BYTES,
    RunningServer,
    ScriptedEngine,
    eventually,
)

PCM = {"response_format": "pcm"}


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/tts"])
def test_the_first_audio_arrives_while_the_engine_still_works(
    start: StartServer, engine: ScriptedEngine, path: str
) -> None:
    engine.play(1)
    with (
        start().client() as client,
        client.stream("POST", path, json={"input": "one two three", **PCM}) as answer,
    ):
        parts = answer.iter_raw(CHUNK_BYTES)
        assert len(next(parts)) == CHUNK_BYTES
        assert engine.stopped == []
        engine.play(2)
        assert sum(map(len, parts)) == 2 * CHUNK_BYTES
        assert engine.stopped == ["one two three"]


def test_the_header_of_a_wav_comes_once_and_with_the_first_audio(
    start: StartServer, engine: ScriptedEngine
) -> None:
    engine.play_all()
    with start().client() as client:
        answer = client.post("/tts", json={"input": "one two"})
    assert answer.headers["content-type"] == "audio/wav"
    assert len(answer.content) == 44 + 2 * CHUNK_BYTES
    assert answer.content.count(b"RIFF") == 1


def test_an_engine_that_fails_before_the_first_audio_is_told_as_an_error(
    start: StartServer, engine: ScriptedEngine
) -> None:
    engine.play_all()
    server = start()
    with server.client() as client:
        answer = client.post("/tts", json={"input": "crash now"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (500, "server_error")
    assert error["code"] == "engine_failed"
    assert "accelerator" not in answer.text
    assert answer.headers["x-request-id"]
    assert server.metric("voicemesh_speech_requests_total", outcome="failed") == 1


def test_an_engine_that_fails_in_mid_stream_breaks_the_connection(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start()
    engine.play(1)
    with (
        server.client() as client,
        client.stream("POST", "/tts", json={"input": "one crash three", **PCM}) as answer,
    ):
        assert answer.status_code == 200
        engine.play_all()
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            answer.read()
    eventually(
        lambda: server.metric("voicemesh_speech_requests_total", outcome="broken") == 1,
        "the broken stream is counted",
    )
    with server.client() as client:
        assert client.post("/tts", json={"input": "one"}).status_code == 200


@pytest.mark.parametrize(("text", "status"), [("silence silence", 400), ("silence one", 200)])
def test_a_text_without_a_single_sample_is_never_an_empty_success(
    start: StartServer, engine: ScriptedEngine, text: str, status: int
) -> None:
    engine.play_all()
    with start().client() as client:
        answer = client.post("/tts", json={"input": text})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "no_audio"


def test_an_http_1_0_client_gets_a_length_and_an_exact_wav_header(
    start: StartServer, engine: ScriptedEngine
) -> None:
    engine.play_all()
    answer = _post_http_1_0(start(), {"input": "one two"})
    body = answer.read()
    assert int(answer.headers["content-length"]) == len(body) == 44 + 2 * CHUNK_BYTES
    assert int.from_bytes(body[40:44], "little") == 2 * CHUNK_BYTES


def test_an_http_1_0_client_is_told_of_a_late_failure(
    start: StartServer, engine: ScriptedEngine
) -> None:
    engine.play_all()
    assert _post_http_1_0(start(), {"input": "one crash"}).status == 500


def test_packets_leave_without_waiting_for_more(start: StartServer, engine: ScriptedEngine) -> None:
    server = start()
    engine.play(1)
    with (
        server.client() as client,
        client.stream("POST", "/tts", json={"input": "one two"}),
    ):
        (connection,) = server.server.server_state.connections
        assert connection.transport is not None
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        engine.play(1)


def _post_http_1_0(server: RunningServer, body: dict[str, str]) -> http.client.HTTPResponse:
    payload = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            b"POST /tts HTTP/1.0\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(payload), payload)
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer
