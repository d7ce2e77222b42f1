"""What the mesh adds to the time until the first byte, and how it holds streams apart.

What two proxies cost that do nothing but pass requests on is measured with them: the rest is what
TLS, tokens, policies and routes take.

Needs root. Brings the environment and the lab up where they are not, and leaves down what was down.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from infra.local import images
from tests.bench.environment import Figure
from tests.bench.quiet import quiet_lab
from tests.e2e.environment import eventually, is_ready
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

_FRONT_PORT, _BACK_PORT = 8081, 8082


def figures() -> Iterator[Figure]:
    """Compares the ways through gateway and sidecar with the way straight to a pod."""
    with quiet_lab("plain", "metered", "walled") as lab, Walled(lab).asked(), _bare_pod(lab) as pod:
        yield from _added(lab, pod)


def _added(lab: Lab, pod: str) -> Iterator[Figure]:
    """The medians of some runs, each of which takes every way in turn."""
    token = lab.token()
    straight = lab.outside(pod, PORT)
    ways = {
        "two proxies without TLS, tokens or policies": (lab.outside(pod, _FRONT_PORT), None),
        "gateway and sidecar": (lab.public(), token),
        "gateway that counts, and sidecar": (lab.public("metered"), token),
        "gateway with a firewall, and sidecar": (lab.public("walled"), token),
    }
    runs = [
        (_percentiles(straight), {name: _percentiles(*way) for name, way in ways.items()})
        for _ in range(_RUNS)
    ]
    for place, percentile in enumerate(("p50", "p99")):
        direct = statistics.median(by_itself[place] for by_itself, _ in runs)
        yield f"first byte, straight to a pod, {percentile}", f"{direct:.2f} ms"
        for name in ways:
            added = statistics.median(by[name][place] - by_itself[place] for by_itself, by in runs)
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
def _bare_pod(lab: Lab) -> Iterator[str]:
    """Address of a scripted server without mesh, with two bare proxies in a row beside it."""
    lab.core.create_namespace({"metadata": {"name": _BARE}})
    try:
        lab.core.create_namespaced_pod(_BARE, _manifest())

        def ready() -> Any:
            pod = lab.core.read_namespaced_pod(_BARE, _BARE)
            return pod.status.pod_ip if is_ready(pod) else None

        yield eventually(ready, what="the bare pod is ready")
    finally:
        lab.core.delete_namespace(_BARE)


def _manifest() -> dict[str, Any]:
    server = {"name": "server", "image": images.reference("scripted-upstream")}
    proxies = [
        {
            "name": name,
            "image": images.reference("proxyv2"),
            "command": ["/usr/local/bin/envoy"],
            "args": ["--config-yaml", json.dumps(_proxy(port, next_port)), "--base-id", str(port)],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        }
        for name, port, next_port in (
            ("front", _FRONT_PORT, _BACK_PORT),
            ("back", _BACK_PORT, PORT),
        )
    ]
    return {
        "metadata": {"name": _BARE},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [server, *proxies]},
    }


def _proxy(port: int, next_port: int) -> dict[str, Any]:
    """Configuration of an Envoy that passes requests on, and does nothing else."""
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = "network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
    http = {
        "@type": f"{filters}.{manager}",
        "stat_prefix": "bare",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": _socket("::", port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": http}]}],
    }
    endpoint = {"endpoint": {"address": _socket("127.0.0.1", next_port)}}
    cluster = {
        "name": "next",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _socket(address: str, port: int) -> dict[str, Any]:
    known = {"address": address, "port_value": port, "ipv4_compat": address == "::"}
    return {"socket_address": known}
