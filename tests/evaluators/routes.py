"""Where a VirtualService leads a request, as Istio reads it: by the first route that fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from voicemesh.istio.specs import HttpMatch, HttpRoute, StringMatch, VirtualServiceSpec

_CLAIM = "@request.auth.claims."


@dataclass(frozen=True)
class Asked:
    """A request as a gateway sees it; its claims are those of a token that was verified."""

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)


def answering(spec: VirtualServiceSpec, asked: Asked) -> dict[str, int] | None:
    """Subsets that may answer, with their shares; None where no route fits."""
    route = _route(spec, asked)
    if route is None:
        return None
    return {part["destination"]["subset"]: part["weight"] for part in route.get("route", [])}


def copying(spec: VirtualServiceSpec, asked: Asked) -> dict[str, float]:
    """Subsets that get copies, with their shares."""
    route = _route(spec, asked) or {}
    return {
        mirror["destination"]["subset"]: mirror["percentage"]["value"]
        for mirror in route.get("mirrors", [])
    }


def _route(spec: VirtualServiceSpec, asked: Asked) -> HttpRoute | None:
    fitting = (
        route
        for route in spec["http"]
        if "match" not in route or any(_fits(match, asked) for match in route["match"])
    )
    return next(fitting, None)


def _fits(match: HttpMatch, asked: Asked) -> bool:
    texts: list[tuple[StringMatch | None, str | None]] = [
        (match.get("uri"), asked.path),
        (match.get("method"), asked.method),
    ]
    for name, wanted in match.get("headers", {}).items():
        claims = name.startswith(_CLAIM)
        source = asked.claims if claims else asked.headers
        texts.append((wanted, source.get(name.removeprefix(_CLAIM))))
    return all(_says(wanted, text) for wanted, text in texts if wanted is not None)


def _says(wanted: StringMatch, text: str | None) -> bool:
    if text is None:
        return False
    if "exact" in wanted:
        return text == wanted["exact"]
    if "prefix" in wanted:
        return text.startswith(wanted["prefix"])
    return "regex" not in wanted or re.fullmatch(wanted["regex"], text) is not None
