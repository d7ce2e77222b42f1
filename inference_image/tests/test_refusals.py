"""Every refusal over HTTP, each beside a permitted twin that differs in one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from inference_image.tests.scripted import RunningServer

VALID: dict[str, Any] = {"model": "hibari", "input": "Good morning.", "voice": "heart"}


@dataclass(frozen=True)
class Case:
    field: str
    refused: Any
    permitted: Any
    code: str
    says: str
    status: int = 400

    def __str__(self) -> str:
        return f"{self.field}-{self.code}-{str(self.refused)[:12]}"


CASES = [
    Case("input", "", "No.", "empty_text", "input is empty"),
    Case("input", " \n ", " no\n ", "empty_text", "input is empty"),
    Case("input", "🎉🎉", "🎉 yes", "nothing_to_speak", "no letters or digits"),
    Case(
        "input", "你好", "Ni hao", "unsupported_characters", "speaks English and cannot read '你'"
    ),
    Case("input", "ⅷ", "⑧", "nothing_to_speak", "no words that the voice can pronounce"),
    Case("input", "a" * 2001, "a " * 40, "text_too_long", "2001 characters; at most 2000"),
    Case("input", "777777 " * 285, "777777 " * 3, "text_too_long", "at most 600 s"),
    Case("input", 7, "7", "string_type", "input: input should be a valid string"),
    Case("input", None, "no", "string_type", "input: input should be a valid string"),
    Case(
        "voice", "nobody", "heart", "unknown_voice", "voice 'nobody' is unknown: use one of heart"
    ),
    Case("voice", "\ud800", {"id": "heart"}, "unknown_voice", "voice '?' is unknown"),
    Case("voice", {"id": 7}, None, "string_type", "voice: "),
    Case("model", "gpt-5", "tts-1", "model_not_found", "use 'hibari'", status=404),
    Case("response_format", "mp3", "wav", "unsupported_response_format", "'mp3' is not served yet"),
    Case("response_format", "txt", "pcm", "unknown_response_format", "use one of wav, pcm"),
    Case("speed", 0.49, 0.5, "speed_out_of_range", "from 0.5 to 2.0"),
    Case("speed", 2.01, 2, "speed_out_of_range", "from 0.5 to 2.0"),
    Case("speed", float("nan"), 1.0, "speed_out_of_range", "from 0.5 to 2.0"),
    Case("speed", "1", 1, "float_type", "speed: input should be a valid number"),
    Case("stream_format", "sse", "audio", "unsupported_stream_format", "use audio"),
    Case("instructions", "whisper", "", "unsupported_instructions", "leave them out"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/tts"])
def test_what_cannot_be_served_is_refused_and_its_twin_is_spoken(
    client: httpx.Client, path: str, case: Case
) -> None:
    refused = _post(client, path, {**VALID, case.field: case.refused})
    error = refused.json()["error"]
    assert refused.status_code == case.status
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        case.field,
        case.code,
    )
    assert case.says in error["message"]

    permitted = _post(client, path, {**VALID, case.field: case.permitted})
    assert permitted.status_code == 200, permitted.text
    assert len(permitted.content) > 4800


def test_model_and_voice_may_be_left_out_but_input_may_not(client: httpx.Client) -> None:
    assert _post(client, "/tts", {"input": "Short."}).status_code == 200
    error = _post(client, "/tts", {"voice": "heart"}).json()["error"]
    assert (error["param"], error["code"]) == ("input", "missing")


def test_all_faults_of_a_body_are_told_at_once(client: httpx.Client) -> None:
    error = _post(client, "/tts", {"input": 7, "speed": "fast", "pitch": 2}).json()["error"]
    assert "input: " in error["message"]
    assert "speed: " in error["message"]
    assert "'pitch' is not a known parameter" in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", "invalid_json"), (b"", "missing"), (b"[]", "model_attributes_type")],
)
def test_a_body_that_is_no_json_object_is_refused(
    client: httpx.Client, body: bytes, code: str
) -> None:
    answer = client.post("/tts", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b"[" * 10_000, b'{"\\ud800": 1}'])
def test_a_hostile_body_is_the_clients_fault_and_not_the_servers(
    client: httpx.Client, body: bytes
) -> None:
    answer = client.post("/tts", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_larger_than_any_permitted_text_is_not_read_to_its_end(
    client: httpx.Client,
) -> None:
    largest = 16 * 1024 + 12 * 2000
    fitting = b'{"input": "Hi."}'.ljust(largest)
    headers = {"content-type": "application/json"}
    assert client.post("/tts", content=fitting, headers=headers).status_code == 200
    answer = client.post("/tts", content=fitting + b" ", headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/v1/audio/speech", 405)]
)
def test_routing_errors_have_the_same_form(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("req_7Fz-1.a:b", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("two words", False),
        ('"><script>', False),
    ],
)
def test_the_clients_request_id_is_kept_if_it_is_well_formed(
    client: httpx.Client, given: str, is_kept: bool
) -> None:
    for body in (VALID, {**VALID, "input": ""}):
        answer = client.post("/tts", json=body, headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is is_kept
        assert answer.headers["x-request-id"]


def test_refusals_are_counted_as_such(speaking: RunningServer, client: httpx.Client) -> None:
    before = speaking.metric("voicemesh_speech_requests_total", outcome="refused")
    _post(client, "/tts", {**VALID, "input": ""})
    _post(client, "/tts", VALID)
    after = speaking.metric("voicemesh_speech_requests_total", outcome="refused")
    assert after == before + 1


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    # The standard library writes NaN and lone surrogates, which httpx refuses to.
    import json

    return client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
