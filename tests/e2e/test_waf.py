"""Attacks are refused, texts to speak are not, whatever they say, and uploads stream through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e import figures
from tests.e2e.environment import eventually
from tests.e2e.lab import Lab, asking
from tests.e2e.scripted_upstream.server import SCRIPT_HEADER, Script
from tests.e2e.walled import VOICE, Walled
from tests.waf import corpus
from tests.waf.select_attacks import CLASSES
from voicemesh.contract import (
    HEALTH_PATH,
    REQUEST_ID_HEADER,
    SPEECH_PATH,
    SPEECH_STREAM_PATH,
    VOICES_PATH,
)
from voicemesh.gateway.waf import WebApplicationFirewall
from voicemesh.waf_provider import WafProvider

PLACES: Final = {"query", "header", "path", "field"}
LEAST_CLASSES: Final = 10
LEAST_BENIGN: Final = 100
"""Of each half."""

PART_BYTES: Final = 128 << 10
PARTS: Final = 24
PART_PAUSE_MS: Final = 100
UPLOAD_BYTES: Final = PARTS * PART_BYTES
SHOWN_BYTES: Final = WafProvider().max_body_kib << 10
MOST_UPLOAD_BYTES: Final = WebApplicationFirewall("waf:1").max_upload_mib << 20

ATTACK: Final = "1' UNION SELECT username, password FROM users-- "


@pytest.fixture(scope="module")
def walled(lab: Lab) -> Iterator[Walled]:
    gateway = Walled(lab)
    with gateway.asked():
        yield gateway


def check_attacks(walled: Walled) -> None:
    """Every attack is refused, by the firewall, and none of them reached the voice."""
    (upstream,) = walled.lab.upstreams(VOICE).values()
    upstream.forget()
    answers = walled.send(list(corpus.attacks()))
    passed = {
        tag: (answer.status, answer.text[:200])
        for tag, answer in answers.items()
        if answer.status != 403 or answer.json["error"]["code"] != "request_refused"
    }
    assert not passed, f"{len(passed)} of {len(answers)} attacks passed: {passed}"
    assert upstream.seen() == []
    figures.note("waf", "attacks refused", len(answers))


def check_benign(walled: Walled, part: corpus.Part) -> None:
    """No good request is refused, and each reaches the voice."""
    answers = walled.send(list(corpus.benign(part)))
    refused = {
        tag: (answer.status, answer.text[:200])
        for tag, answer in answers.items()
        if answer.status != 200
    }
    assert not refused, f"{len(refused)} of {len(answers)} good requests were refused: {refused}"
    figures.note("waf", f"good requests served, {part.replace('_', ' ')}", len(answers))


def check_upload(walled: Walled) -> None:
    """Of a large upload, the voice has the beginning long before the end is sent."""
    answer = walled.ask(
        VOICES_PATH,
        headers={
            "content-type": "audio/wav",
            "content-length": str(UPLOAD_BYTES),
            SCRIPT_HEADER: json.dumps({"echo": True}),
        },
        body_parts=[PART_BYTES] * PARTS,
        body_pause_ms=PART_PAUSE_MS,
    )
    assert (answer.status, answer.size) == (200, UPLOAD_BYTES), answer.text
    sent_seconds = PARTS * PART_PAUSE_MS / 1e3
    figures.note("waf", "first byte of an upload echoed after", answer.first_byte_seconds, "s")
    assert answer.first_byte_seconds < sent_seconds / 2, "the upload was held back"


def test_the_attacks_are_of_many_classes_and_in_every_place() -> None:
    tags = [request.tag for request in corpus.attacks()]
    kinds = Counter(tag.partition(" in ")[0] for tag in tags)
    places = {tag.partition(" in ")[2].partition(":")[0] for tag in tags}
    assert len(kinds.keys() & set(CLASSES.values())) >= LEAST_CLASSES
    assert places >= PLACES


def test_attacks_are_refused(walled: Walled) -> None:
    check_attacks(walled)


@pytest.mark.parametrize("part", ["tuning", "held_out"])
def test_good_requests_are_served(walled: Walled, part: corpus.Part) -> None:
    assert len(list(corpus.benign(part))) >= LEAST_BENIGN
    check_benign(walled, part)


def test_uploads_stream_through(walled: Walled) -> None:
    check_upload(walled)


def test_the_checks_notice_a_gateway_that_asks_no_firewall(walled: Walled) -> None:
    with walled.not_asked(), pytest.raises(AssertionError, match="attacks passed"):
        check_attacks(walled)


def test_the_checks_notice_rules_that_look_at_spoken_texts(walled: Walled) -> None:
    def without_exemption(options: list[str]) -> list[str]:
        return [option for option in options if not option.startswith("-spoken")]

    with (
        walled.other_options(without_exemption),
        pytest.raises(AssertionError, match="good requests were refused"),
    ):
        check_benign(walled, "tuning")


def test_the_checks_notice_uploads_that_are_held_back(walled: Walled) -> None:
    def whole(provider: dict[str, dict[str, bool]]) -> None:
        provider["includeRequestBodyInCheck"]["allowPartialMessage"] = False

    def is_refused() -> bool:
        # The proxy itself then refuses what it may not buffer, in words of its own.
        body = json.dumps({"input": "a" * SHOWN_BYTES})
        return "error" not in walled.ask(SPEECH_PATH, body).text

    with (
        walled.asked_otherwise(whole, is_refused),
        pytest.raises(AssertionError, match="Payload Too Large"),
    ):
        check_upload(walled)
    eventually(lambda: not is_refused(), 60, "parts of bodies are shown again")


def test_without_its_firewall_the_gateway_does_as_it_is_told(walled: Walled) -> None:
    def open_up(provider: dict[str, object]) -> None:
        provider["failOpen"] = True

    def status() -> int | None:
        return walled.ask(SPEECH_PATH, corpus.speech("alloy")).status

    with walled.down():
        eventually(lambda: status() == 503, 30, "nothing is let through")
        assert walled.ask(SPEECH_PATH, corpus.speech(ATTACK)).status == 503
        assert walled.ask(HEALTH_PATH, method="GET").status == 200
        with walled.asked_otherwise(open_up, lambda: status() == 200):
            assert walled.ask(SPEECH_PATH, corpus.speech(ATTACK)).status == 200
        eventually(lambda: status() == 503, 60, "nothing is let through again")


def test_a_refusal_names_the_request_and_neither_rule_nor_payload(walled: Walled) -> None:
    answer = walled.ask(SPEECH_PATH, corpus.speech(ATTACK))
    request_id = answer.headers[REQUEST_ID_HEADER]
    error = answer.json["error"]
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert error.keys() == {"message", "type", "param", "code"}
    assert request_id in error["message"]
    assert "942" not in answer.text
    assert "UNION" not in answer.text


def test_the_log_has_rules_and_request_but_no_payload_and_no_token(walled: Walled) -> None:
    answer = walled.ask(f"{SPEECH_PATH}?secret=4711", corpus.speech(ATTACK))
    request_id = answer.headers[REQUEST_ID_HEADER]

    def lines() -> list[dict[str, object]]:
        return [line for line in walled.log() if line.get("request_id") == request_id]

    (line,) = eventually(lines, 10, "the refusal is logged")
    assert line["path"] == SPEECH_PATH
    assert line["status"] == 403
    assert line["code"] == "request_refused"
    rules = line["rules"]
    assert isinstance(rules, list)
    assert any(942000 <= rule < 943000 for rule in rules)
    assert not any(secret in json.dumps(line) for secret in ("UNION", "4711", "Bearer", "eyJ"))


@pytest.mark.parametrize(
    ("path", "content_type", "size", "stated", "status", "code"),
    [
        (SPEECH_PATH, "application/json", SHOWN_BYTES + 1, True, 413, "body_too_large"),
        (VOICES_PATH, "audio/wav", MOST_UPLOAD_BYTES + 1, True, 413, "body_too_large"),
        (VOICES_PATH, "audio/wav", SHOWN_BYTES + 1, False, 411, "length_required"),
        (VOICES_PATH, "audio/wav", SHOWN_BYTES - 1, False, 200, None),
        (VOICES_PATH, "multipart/form-data; boundary=x", SHOWN_BYTES + 1, True, 200, None),
        (SPEECH_PATH, "audio/wav", 100, True, 415, "unsupported_content_type"),
    ],
)
def test_bodies_are_as_large_as_they_may_be(
    walled: Walled,
    path: str,
    content_type: str,
    size: int,
    stated: bool,
    status: int,
    code: str | None,
) -> None:
    length = {"content-length": str(size)} if stated else {}
    answer = walled.ask(path, headers={"content-type": content_type, **length}, body_parts=[size])
    assert answer.status == status, answer.text
    if code is not None:
        assert answer.json["error"]["code"] == code


def test_control_characters_are_not_spoken(walled: Walled) -> None:
    answer = walled.ask(SPEECH_PATH, '{"input": "a\\u0000b"}')
    assert (answer.status, answer.json["error"]["code"]) == (400, "control_characters")


def test_answers_stream_and_websockets_open(walled: Walled) -> None:
    token = walled.lab.token()
    script = Script(chunks=50, size=256, pause_ms=40)
    body = corpus.speech("alloy")
    stream = walled.lab.request(asking(script, token=token, body=body), voice=VOICE)
    assert stream.is_good
    lasted = stream.ended - stream.started
    assert stream.first_byte_seconds < lasted / 2
    socket = walled.lab.request(
        asking(token=token, path=SPEECH_STREAM_PATH, method="GET", messages=[16] * 3), voice=VOICE
    )
    assert (socket.status, len(socket.arrivals)) == (101, 3)
