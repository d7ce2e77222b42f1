"""Live routes, changed for a while or for good, and known to be in effect."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tests.e2e.environment import eventually
from tests.e2e.lab import Caller, Lab
from voicemesh.contract import HEALTH_PATH

MARK_HEADER: Final = "x-routed-by"
"""Header of answers that says which state of the routes led to them, where a test put it there."""

Route = dict[str, Any]
Change = Callable[[list[Route]], list[Route]]


def marked(routes: list[Route], mark: str) -> list[Route]:
    """The same routes, whose answers have a mark."""
    routes = copy.deepcopy(routes)
    for route in routes:
        answer = route.setdefault("headers", {}).setdefault("response", {})
        answer["set"] = {**answer.get("set", {}), MARK_HEADER: mark}
    return routes


def shared(routes: list[Route], weights: Mapping[str, int]) -> list[Route]:
    """The same routes, with these weights where requests are shared by weight."""
    routes = copy.deepcopy(routes)
    for route in routes:
        if route["name"] in ("weighted", "mirrored"):
            host = route["route"][0]["destination"]["host"]
            route["route"] = [
                {"destination": {"host": host, "subset": subset}, "weight": weight}
                for subset, weight in weights.items()
                if weight
            ]
    return routes


def live(lab: Lab, voice: str, kind: str = "public") -> list[Route]:
    """The routes that the API server has: of the gateway (`public`), or of the `mesh`."""
    return lab.read("VirtualService", lab.voices[voice], f"{voice}-{kind}")["spec"]["http"]


@contextmanager
def rerouted(
    lab: Lab, voice: str, change: Change, kind: str = "public", through: Caller | None = None
) -> Iterator[None]:
    """For a while, the routes are changed, and whoever calls is led by the changed ones.

    Args:
        lab: the lab.
        voice: whose routes.
        change: makes the new routes from the live ones.
        kind: `public` or `mesh`.
        through: a caller whom these routes lead; by default a client of the gateway.
    """
    caller = through or lab.public(voice)
    mark = uuid.uuid4().hex[:8]
    routes = marked(change(copy.deepcopy(live(lab, voice, kind))), mark)
    # In effect once a mark, or its absence, is seen: no other change of the routes is under way.
    with lab.patched("VirtualService", lab.voices[voice], f"{voice}-{kind}", {"http": routes}):
        eventually(lambda: _mark(lab, caller) == mark, what="the changed routes are in effect")
        yield
    eventually(lambda: _mark(lab, caller) != mark, what="the routes of before are in effect")


def _mark(lab: Lab, caller: Caller) -> str | None:
    answer = caller.request(lab.asking(path=HEALTH_PATH, method="GET"))
    return answer.headers.get(MARK_HEADER)
