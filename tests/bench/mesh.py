"""What the mesh adds to the time until the first byte, and how it holds streams apart.

Needs root. Brings the environment and the lab up where they are not, and leaves down what was down.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from infra.local import images, network
from tests.bench.environment import Figure, local
from tests.e2e import lab as laboratory
from tests.e2e.environment import Environment, eventually, is_ready
from tests.e2e.figures import note
from tests.e2e.lab import Caller, Lab, asking
from tests.e2e.scripted_upstream.server import PORT, Script
from tests.e2e.walled import Walled

_RUNS: Final = 3
_REQUESTS: Final = 1_500
_PER_SECOND: Final = 150
_WARM_UP: Final = 100
_ANSWER: Final = Script(chunks=1, size=1_920)
"""40 ms of audio."""

_SPOKEN: Final = json.dumps({"input": "Streams flow past the houses.", "voice": "alloy"})

_BARE: Final = "lab-direct"
"""Namespace, and name, of a pod without sidecar or policy."""


def figures() -> Iterator[Figure]:
    """Compares the way through gateway and sidecar with the way straight to a pod."""
    was_up = network.hub_namespace().exists()
    if not was_up:
        local("up")
    laboratory.up()
    lab = Lab(Environment.running())
    try:
        with _bare_pod(lab) as direct, Walled(lab).asked():
            yield from _added(lab, direct)
    finally:
        if not was_up:
            local("down")


def _added(lab: Lab, direct: Caller) -> Iterator[Figure]:
    """The medians of some runs, each of which takes every way in turn."""
    token = lab.token()
    ways = {
        "gateway and sidecar": lab.public(),
        "gateway that counts, and sidecar": lab.public("metered"),
        "gateway with a firewall, and sidecar": lab.public("walled"),
    }
    runs = [
        (_percentiles(direct), {name: _percentiles(way, token) for name, way in ways.items()})
        for _ in range(_RUNS)
    ]
    for place, percentile in enumerate(("p50", "p99")):
        straight = statistics.median(pod[place] for pod, _ in runs)
        yield f"first byte, straight to a pod, {percentile}", f"{straight:.2f} ms"
        for name in ways:
            added = statistics.median(by[name][place] - pod[place] for pod, by in runs)
            note("latency", f"first byte, added by {name}, {percentile}", added, "ms")
            yield f"added by {name}, {percentile}, median of {_RUNS}", f"{added:.2f} ms"


def _percentiles(caller: Caller, token: str | None = None) -> tuple[float, float]:
    """Median and 99th percentile of the time to the first byte, in milliseconds."""
    request = asking(_ANSWER, token=token, body=_SPOKEN, count=_WARM_UP + _REQUESTS)
    answers = caller.load(request, per_second=_PER_SECOND)
    assert all(answer.is_good for answer in answers)
    seconds = [answer.first_byte_seconds for answer in answers[_WARM_UP:]]
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1e3, cuts[98] * 1e3


@contextmanager
def _bare_pod(lab: Lab) -> Iterator[Caller]:
    """A scripted server that is called without any proxy in between."""
    lab.core.create_namespace({"metadata": {"name": _BARE}})
    try:
        lab.core.create_namespaced_pod(_BARE, _manifest())

        def ready() -> Any:
            pod = lab.core.read_namespaced_pod(_BARE, _BARE)
            return pod.status.pod_ip if is_ready(pod) else None

        yield lab.outside(eventually(ready, what="the bare pod is ready"), PORT)
    finally:
        lab.core.delete_namespace(_BARE)


def _manifest() -> dict[str, Any]:
    container = {"name": "server", "image": images.reference("scripted-upstream")}
    return {
        "metadata": {"name": _BARE},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
