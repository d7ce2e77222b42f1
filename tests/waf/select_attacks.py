"""Selects attacks from the regression tests of the OWASP Core Rule Set: writes attacks.json.

    python -m tests.waf.select_attacks FOLDER

FOLDER is that of the Go module github.com/corazawaf/coraza-coreruleset/v4, which carries rules and
tests. Taken are tests that expect a critical rule of paranoia level 1 to match: one such match is
enough for a refusal. A payload that the test sends in the query, in a header or in the path stays
there, below a path that is served: without a route, a gateway answers 404 and asks nobody. One that
it sends in a field of a form goes into a field of JSON that is not spoken, and into the query:
rules treat all of these alike.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ATTACKS: Final = Path(__file__).parent / "attacks.json"
CLASSES: Final = {
    "913": "scanner",
    "921": "protocol",
    "930": "local file inclusion",
    "931": "remote file inclusion",
    "932": "remote command execution",
    "933": "PHP injection",
    "934": "code injection",
    "941": "cross-site scripting",
    "942": "SQL injection",
    "943": "session fixation",
    "944": "Java injection",
}
PER_RULE_AND_PLACE: Final = 1
PER_CLASS_AND_PLACE: Final = 4

_OWN_HEADERS: Final = {"host", "accept", "content-type", "content-length", "connection"}
_TEST_AGENT: Final = "OWASP CRS test agent"


@dataclass(frozen=True)
class Attack:
    """A request that is to be refused.

    Attributes:
        test: of the Core Rule Set, as rule and number.
        kind: class of the attack.
        place: where the payload is: query, header, path or field.
        method: of the request.
        path: path and query.
        headers: further ones.
        field: value of a field that is not spoken; None for a request without a body.
    """

    test: str
    kind: str
    place: str
    method: str
    path: str
    headers: dict[str, str]
    field: str | None = None


def critical_rules(rules: Path) -> set[int]:
    """The critical rules of paranoia level 1."""
    found = set()
    for file in rules.glob("REQUEST-*.conf"):
        text = file.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            number = re.search(r"\bid:(\d+)", line)
            if number and "paranoia-level/1" in line and "severity:'CRITICAL'" in line:
                found.add(int(number[1]))
    return found


def attacks(folder: Path) -> Iterator[Attack]:
    """Every attack that can be sent to the gateway as it is, in the order of the rules."""
    wanted = critical_rules(folder / "rules" / "@owasp_crs")
    for file in sorted((folder / "tests").glob("REQUEST-*/*.yaml")):
        rule = int(file.stem)
        kind = CLASSES.get(file.stem[:3])
        if kind is None or rule not in wanted:
            continue
        for test in yaml.safe_load(file.read_text())["tests"]:
            expected = test["stages"][0]["output"].get("log", {}).get("expect_ids", [])
            if len(test["stages"]) == 1 and rule in expected:
                yield from _placed(f"{rule}-{test['test_id']}", kind, test["stages"][0]["input"])


def _placed(test: str, kind: str, sent: dict[str, Any]) -> Iterator[Attack]:
    method, uri = sent.get("method", "GET"), sent.get("uri", "/")
    if not uri.startswith("/") or sent.get("encoded_request") or not uri.isascii():
        return
    path, _, query = uri.partition("?")
    headers = _telling(sent.get("headers", {}))
    is_plain = path in ("/", "/get", "/post")
    if sent.get("data"):
        if method == "POST" and not headers and not query:
            yield from _from_form(test, kind, sent)
    elif method != "GET":
        return
    elif query and is_plain and not headers and " " not in query:
        yield Attack(test, kind, "query", "GET", f"/v1/audio/voices?{query}", {})
    elif headers and is_plain and not query:
        yield Attack(test, kind, "header", "GET", "/v1/audio/voices", headers)
    elif not headers and not is_plain and " " not in uri:
        below = uri.removeprefix("/get")
        yield Attack(test, kind, "path", "GET", f"/v1/audio/voices{below}", {})


def _from_form(test: str, kind: str, sent: dict[str, Any]) -> Iterator[Attack]:
    """The values of a form with one field, as a test gives them: encoded, or as they are."""
    types = {name.lower(): value for name, value in sent.get("headers", {}).items()}
    if "json" in types.get("content-type", "") or "xml" in types.get("content-type", ""):
        return
    name, separator, value = str(sent["data"]).partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z_]+", name) or re.search(r"&[a-z]+=", value):
        return
    plain = urllib.parse.unquote_plus(value)
    quoted = urllib.parse.urlencode({"name": plain})
    yield Attack(test, kind, "field", "POST", "/v1/audio/speech", {}, plain)
    yield Attack(test, kind, "query", "GET", f"/v1/audio/voices?{quoted}", {})


def _telling(headers: dict[str, Any]) -> dict[str, str]:
    """The headers that are the attack, not what every test sends.

    A Referer that is no URL is left out: Envoy removes it, whoever asks.
    """
    return {
        name: str(value)
        for name, value in headers.items()
        if name.lower() not in _OWN_HEADERS
        and value != _TEST_AGENT
        and str(value).isascii()
        and not (name.lower() == "referer" and " " in str(value))
    }


def selected(found: Iterator[Attack]) -> list[Attack]:
    """The first few of each rule, class and place."""
    of_rule: Counter[tuple[str, str]] = Counter()
    of_class: Counter[tuple[str, str]] = Counter()
    kept = []
    for attack in found:
        rule = (attack.test.partition("-")[0], attack.place)
        group = (attack.kind, attack.place)
        if of_rule[rule] < PER_RULE_AND_PLACE and of_class[group] < PER_CLASS_AND_PLACE:
            of_rule[rule] += 1
            of_class[group] += 1
            kept.append(attack)
    return kept


if __name__ == "__main__":
    rows = [asdict(attack) for attack in selected(attacks(Path(sys.argv[1])))]
    ATTACKS.write_text("\n".join(["[", ",\n".join(map(json.dumps, rows)), "]"]) + "\n")
    for group, count in Counter((row["kind"], row["place"]) for row in rows).items():
        print(*group, count)
