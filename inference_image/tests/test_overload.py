"""More work than fits: who waits, who is sent away, and whose place becomes free."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from inference_image.tests.conftest import StartServer
from inference_image.tests.scripted import (
    CHUNK_BYTES,
    RunningServer,
    ScriptedEngine,
    eventually,
)


@contextmanager
def asking(server: RunningServer, text: str) -> Iterator[socket.socket]:
    """A client that has asked for PCM and reads nothing; it leaves at the end of the block."""
    body = json.dumps({"input": text, "response_format": "pcm"}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        yield connection


def running(server: RunningServer) -> float:
    return server.metric("voicemesh_running_syntheses")


def waiting(server: RunningServer) -> float:
    return server.metric("voicemesh_queue_depth_requests")


def outcomes(server: RunningServer, outcome: str) -> float:
    return server.metric("voicemesh_speech_requests_total", outcome=outcome)


def test_what_does_not_fit_is_answered_429_and_the_rest_is_served(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=2, queue_limit=3)

    def ask(_: int) -> httpx.Response:
        with server.client() as client:
            return client.post("/tts", json={"input": "one two", "response_format": "pcm"})

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        eventually(lambda: outcomes(server, "shed") == 7, "seven of twelve are sent away")
        assert (running(server), waiting(server)) == (2, 3)
        engine.play_all()
        answers = [answer.result() for answer in asked]

    served = [answer for answer in answers if answer.status_code == 200]
    shed = [answer for answer in answers if answer.status_code == 429]
    assert (len(served), len(shed)) == (5, 7)
    assert all(len(answer.content) == 2 * CHUNK_BYTES for answer in served)
    for answer in shed:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert answer.json()["error"]["code"] == "server_busy"
        assert answer.headers["x-request-id"]
    assert (running(server), waiting(server)) == (0, 0)


def test_never_more_than_the_permitted_number_are_in_synthesis(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=2, queue_limit=3)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(asking(server, f"text {number}"))
            eventually(lambda n=number: running(server) + waiting(server) == n + 1, "it arrived")
        assert engine.started == ["text 0", "text 1"]
        engine.play(2)
        engine.play(2)
        eventually(lambda: len(engine.started) == 4, "two others have their turn")
        assert running(server) == 2


def test_a_client_that_leaves_in_mid_stream_frees_its_slot(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=1, queue_limit=1)
    with asking(server, "one two three") as leaving, asking(server, "next"):
        engine.play(1)
        assert leaving.recv(15) == b"HTTP/1.1 200 OK"
        eventually(lambda: waiting(server) == 1, "the next one waits")
        leaving.close()
        eventually(lambda: engine.stopped == ["one two three"], "the engine stops")
        eventually(lambda: "next" in engine.started, "the next one has its turn")
    assert outcomes(server, "abandoned") >= 1
    eventually(lambda: running(server) == 0, "the slot is free")
    assert server.metric("voicemesh_unread_audio_bytes") == 0


def test_a_client_that_leaves_before_the_first_audio_frees_its_slot(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=1, queue_limit=0)
    with asking(server, "one two"):
        eventually(lambda: engine.started == ["one two"], "it is in synthesis")
    eventually(lambda: running(server) == 0, "the slot is free")
    assert outcomes(server, "abandoned") == 1


def test_a_client_that_leaves_the_line_frees_its_place_and_is_never_spoken(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=1, queue_limit=1)
    with asking(server, "first"):
        eventually(lambda: running(server) == 1, "the first one runs")
        with asking(server, "gone"):
            eventually(lambda: waiting(server) == 1, "one waits")
        eventually(lambda: waiting(server) == 0, "its place is free")
        with asking(server, "second") as second:
            eventually(lambda: waiting(server) == 1, "another one waits")
            engine.play_all()
            assert second.recv(15) == b"HTTP/1.1 200 OK"
    assert "gone" not in engine.started


def test_a_client_that_does_not_read_keeps_nobody_waiting(
    start: StartServer, engine: ScriptedEngine
) -> None:
    server = start(concurrency=1, queue_limit=1, unread_audio_mib=1)
    engine.play_all()
    long_text = " ".join(["word"] * 250)  # 12 MB: more than the sockets' own buffers hold
    with asking(server, long_text):
        eventually(lambda: engine.stopped == [long_text], "the synthesis has ended")
        eventually(lambda: running(server) == 0, "the slot is free")
        with server.client() as client:
            busy = client.post("/tts", json={"input": "one"})
            assert busy.status_code == 429, "unread audio is bounded"
    eventually(lambda: server.metric("voicemesh_unread_audio_bytes") == 0, "it is forgotten")
    with server.client() as client:
        assert client.post("/tts", json={"input": "one"}).status_code == 200


def test_a_client_that_takes_nothing_for_too_long_is_cut_off(
    start: StartServer, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech_server.response.STALLED_CLIENT_SECONDS", 0.05)
    server = start()
    engine.play_all()
    with asking(server, " ".join(["word"] * 250)):
        eventually(lambda: outcomes(server, "broken") == 1, "the stream is cut")
    assert server.metric("voicemesh_unread_audio_bytes") == 0


def test_a_short_text_does_not_wait_for_a_long_one(
    start: StartServer,
) -> None:
    one_at_a_time = ScriptedEngine(parallelism=1)
    server = start(one_at_a_time, concurrency=2)
    try:
        with asking(server, " ".join(["word"] * 100)) as long:
            one_at_a_time.play(1)
            assert long.recv(15) == b"HTTP/1.1 200 OK"
            with server.client() as client, ThreadPoolExecutor(1) as pool:
                short = pool.submit(client.post, "/tts", json={"input": "short"})
                eventually(lambda: running(server) == 2, "both are in synthesis")
                one_at_a_time.play(4)
                assert short.result().status_code == 200
            assert one_at_a_time.stopped == ["short"]
    finally:
        one_at_a_time.play_all()


def test_the_server_answers_while_every_thread_of_the_engine_is_busy(
    start: StartServer,
) -> None:
    stuck = ScriptedEngine(parallelism=1)
    server = start(stuck)
    try:
        with asking(server, "one"), server.client() as client:
            eventually(lambda: stuck.started == ["one"], "the engine works")
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
            assert threading.active_count() < 50
    finally:
        stuck.play_all()
