"""Requests for the web application firewall: attacks, and good ones of two kinds.

The good ones are our own. While somebody tunes rules they look at `tuning.*` only; `held_out.*`
says what that was worth, and a request of it that is refused is no reason for an exception of its
own. Each has texts to speak, one after another between lines of `%%`, requests as JSON, and novels
that are made of its texts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from tests.e2e.load import Request
from tests.waf.select_attacks import ATTACKS
from voicemesh.contract import BATCH_PATH, SPEECH_PATH, TTS_PATH

Part = Literal["tuning", "held_out"]

NOVEL_CHARACTERS: Final = (4_000, 9_000, 16_000, 24_000, 32_000, 48_000, 64_000, 95_000)
_FOLDER: Final = Path(__file__).parent
_USUAL: Final = {"user-agent": "OpenAI/Python 2.8.1", "accept": "*/*"}


def attacks() -> Iterator[Request]:
    """Attacks of the Core Rule Set's own tests; tagged `KIND in PLACE: TEST`."""
    for attack in json.loads(ATTACKS.read_text()):
        body = speech(attack["field"]) if attack["field"] is not None else ""
        tag = f"{attack['kind']} in {attack['place']}: {attack['test']}"
        yield request(attack["path"], body, tag, attack["headers"], attack["method"])


def speech(voice: str) -> str:
    """A body whose voice, which nobody speaks, is this."""
    return json.dumps({"input": "Hello.", "voice": voice}, ensure_ascii=False)


def benign(part: Part) -> Iterator[Request]:
    """Requests that are good; tagged by what they are."""
    written = texts(part)
    for number, text in enumerate(written):
        path, body = _spoken(number, text)
        yield request(path, body, f"text {number}: {text[:40]!r}")
    for number, each in enumerate(json.loads((_FOLDER / f"{part}.json").read_text())):
        body = json.dumps(each["json"], ensure_ascii=False) if "json" in each else ""
        method = each.get("method", "POST")
        yield request(each["path"], body, f"request {number}", each.get("headers", {}), method)
    for characters in NOVEL_CHARACTERS:
        body = {"voice": "alloy", "input": novel(written, characters)}
        escaped = json.dumps(body, ensure_ascii=characters % 3_000 == 0)
        yield request(SPEECH_PATH, escaped, f"novel of {characters} characters")


def texts(part: Part) -> list[str]:
    """The texts to speak."""
    return (_FOLDER / f"{part}.txt").read_text().rstrip("\n").split("\n%%\n")


def novel(written: list[str], characters: int) -> str:
    """A long text: the given ones again and again, in another order each time."""
    order = random.Random(characters)  # noqa: S311  the same at every run
    pages: list[str] = []
    while sum(map(len, pages)) < characters:
        pages += order.sample(written, len(written))
    return "\n\n".join(pages)[:characters]


def request(
    path: str, body: str, tag: str, headers: dict[str, str] | None = None, method: str = "POST"
) -> Request:
    """A request as usual clients send it."""
    given = {name.lower(): value for name, value in (headers or {}).items()}
    return Request(path=path, method=method, headers={**_USUAL, **given}, body=body, tag=tag)


def _spoken(number: int, text: str) -> tuple[str, str]:
    """A text in one of the fields whose text is spoken."""
    places: list[tuple[str, dict[str, Any]]] = [
        (SPEECH_PATH, {"model": "tts-1", "voice": "alloy", "input": text}),
        (SPEECH_PATH, {"voice": "echo", "input": text, "response_format": "pcm"}),
        (TTS_PATH, {"text": text}),
        (SPEECH_PATH, {"voice": "nova", "input": "Hello.", "instructions": text}),
        (BATCH_PATH, {"requests": [{"input": "Hello."}, {"input": text, "voice": "nova"}]}),
    ]
    path, body = places[number % len(places)]
    return path, json.dumps(body, ensure_ascii=number % 2 == 0)
