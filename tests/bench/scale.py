"""Scheduling and mesh configuration at the size of a fleet, on nodes that kwok simulates.

The control plane, istiod and the gateway's Envoy are the embedded environment's real ones; nodes
and pods are objects only, whose kubelets kwok plays. They have the labels, taints and extended
resources of GPU nodes cut into slices, a namespace of their own, and are removed in the end. The
environment is left as it was found, up or down.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from kubernetes.client import ApiException, CoordinationV1Api

from infra.local import network, processes, toolbox
from infra.local.control_plane import KUBECONFIG
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import LOGS
from infra.local.waiting import log_end, wait_until
from tests.bench.environment import Figure, local
from tests.e2e.environment import Environment, is_ready
from voicemesh.contract import (
    ACCELERATOR_LABEL,
    APP_LABEL,
    GATEWAY_NAMESPACE,
    GPU_TAINT_KEY,
    GPU_TAINT_VALUE,
    H100,
    HTTP_PORT,
    NODE_TYPE_LABEL,
    OFFLINE_NODE_TYPE,
    OFFLINE_WORKLOAD,
    ONLINE_NODE_TYPE,
    WORKLOAD_TAINT_KEY,
)

NODES = 1000
PODS = 2000
SERVICES = 20
SINGLE_CHANGES = 5

_NAMESPACE = "simulated"
_MARK = "voicemesh.io/simulated"
_ZONE = "topology.kubernetes.io/zone"
_SLICE = "nvidia.com/mig-1g.20gb"
_SLICES_OF_A_GPU = 4
_POD_RANGE = "10.200.0.1/16"
_STAGES = ("node/fast/node-*.yaml", "node/heartbeat-with-lease/node-*.yaml", "pod/fast/pod-*.yaml")
_LOG = LOGS / "kwok.log"
_OFFLINE_SHARE = 5
"""Every fifth node is for offline work, and no pod of a voice may come there."""

_SCHEDULER_REQUESTS_PER_SECOND = 50
"""kube-scheduler's own limit on its requests (--kube-api-qps); each pod is bound by one.
https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/"""

_CREATORS = 8
_LONGEST_SECONDS = 600.0


def figures() -> Iterator[Figure]:
    """Schedules the fleet's pods and lets the gateway's proxy know them."""
    was_up = bool(processes.recorded_daemons())
    toolbox.ensure_tools(["kwok"])
    local("up")
    try:
        environment = Environment.running()
        with _simulation(environment) as kwok:
            yield from _nodes(environment.core, kwok)
            yield from _pods(environment.core)
            yield from _single_changes(environment.core)
            started = time.monotonic()
        yield "everything simulated removed", _seconds(time.monotonic() - started)
    finally:
        if not was_up:
            local("down")


@contextmanager
def _simulation(environment: Environment) -> Iterator[subprocess.Popen[bytes]]:
    """kwok, and a namespace; whatever an interrupted run left is removed first."""
    core = environment.core
    _remove(core)
    stages = toolbox.kwok_stages()
    argv = [
        *("setpriv", "--pdeathsig", "KILL", str(toolbox.binary("kwok"))),
        f"--kubeconfig={KUBECONFIG}",
        f"--manage-nodes-with-label-selector={_MARK}",
        f"--cidr={_POD_RANGE}",
        # The default has each node renew its lease every 10 s, which keeps two cores busy.
        "--node-lease-duration-seconds=120",
        "--v=ERROR",  # it would tell of every pod
        *(f"--config={path}" for stage in _STAGES for path in sorted(stages.glob(stage))),
    ]
    with _LOG.open("wb") as log:
        kwok = subprocess.Popen(network.in_hub(argv), stdout=log, stderr=subprocess.STDOUT)
    try:
        core.create_namespace({"metadata": {"name": _NAMESPACE}})
        yield kwok
    finally:
        kwok.terminate()
        kwok.wait()
        _remove(core)


def _nodes(core: Any, kwok: subprocess.Popen[bytes]) -> Iterator[Figure]:
    started = time.monotonic()
    _all(lambda number: core.create_node(_node(number), _preload_content=False), range(NODES))

    def unready() -> str | None:
        if kwok.poll() is not None:
            raise LocalEnvironmentError(f"kwok ended with {kwok.returncode}{log_end(_LOG)}")
        ready = sum(map(is_ready, core.list_node(label_selector=_MARK, resource_version="0").items))
        return None if ready == NODES else f"{ready} of {NODES} are ready"

    wait_until(unready, "the simulated nodes", _LONGEST_SECONDS)
    yield f"{NODES:,} nodes created and ready", _seconds(time.monotonic() - started)


def _pods(core: Any) -> Iterator[Figure]:
    for number in range(SERVICES):
        core.create_namespaced_service(_NAMESPACE, _service(number))
    before = _convergence(core)
    started = time.monotonic()
    _all(lambda number: _create_pod(core, number), range(PODS))
    yield f"{PODS:,} pods created", _seconds(time.monotonic() - started)
    wait_until(lambda: _some(core, _UNSCHEDULED), "all pods to be scheduled", _LONGEST_SECONDS)
    scheduled = time.monotonic() - started
    yield "first created → last scheduled", f"{scheduled:.1f} s, {PODS / scheduled:.0f} pods/s"
    yield "the scheduler's own limit", f"{_SCHEDULER_REQUESTS_PER_SECOND} pods/s"
    wait_until(lambda: _some(core, _NOT_RUNNING), "all pods to run", _LONGEST_SECONDS)
    yield "first created → last ready, by kwok", _seconds(time.monotonic() - started)
    wait_until(lambda: _unknown_endpoints(core, PODS), "the mesh", _LONGEST_SECONDS)
    yield "first created → all known to the gateway's proxy", _seconds(time.monotonic() - started)
    yield "istiod's pushes meanwhile", _described(before, _convergence(core))
    yield "pods on nodes for offline work, or on real ones", str(_misplaced(core))


def _single_changes(core: Any) -> Iterator[Figure]:
    """What one more pod of a large fleet takes, since a rollout is many of these."""
    before = _convergence(core)
    took: dict[str, list[float]] = defaultdict(list)
    for number in range(PODS, PODS + SINGLE_CHANGES):
        steps = {
            "created → scheduled": lambda: _some(core, _UNSCHEDULED),
            "scheduled → ready, by kwok": lambda: _some(core, _NOT_RUNNING),
            "ready → known to the gateway's proxy": partial(_unknown_endpoints, core, number + 1),
        }
        _create_pod(core, number)
        for what, missing in steps.items():
            started = time.monotonic()
            wait_until(missing, what, _LONGEST_SECONDS)
            took[what].append(time.monotonic() - started)
    for what, seconds in took.items():
        figure = f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"
        yield f"one more pod, {SINGLE_CHANGES} times: {what}", figure
    yield "istiod's pushes meanwhile", _described(before, _convergence(core))


def _node(number: int) -> dict[str, Any]:
    is_offline = number % _OFFLINE_SHARE == 0
    taints = {GPU_TAINT_KEY: GPU_TAINT_VALUE, _MARK: "true"}
    if is_offline:
        taints[WORKLOAD_TAINT_KEY] = OFFLINE_WORKLOAD
    # Without the label kubernetes.io/os, no DaemonSet puts a pod there.
    labels = {
        _MARK: "true",
        ACCELERATOR_LABEL: H100,
        NODE_TYPE_LABEL: OFFLINE_NODE_TYPE if is_offline else ONLINE_NODE_TYPE,
        _ZONE: f"simulated-{'abc'[number % 3]}",
    }
    resources = {"cpu": "16", "memory": "256Gi", "pods": "110", _SLICE: str(_SLICES_OF_A_GPU)}
    return {
        "metadata": {"name": f"simulated-{number}", "labels": labels},
        "spec": {
            "taints": [
                {"key": key, "value": value, "effect": "NoSchedule"}
                for key, value in taints.items()
            ]
        },
        "status": {"capacity": resources, "allocatable": resources},
    }


def _create_pod(core: Any, number: int) -> None:
    core.create_namespaced_pod(_NAMESPACE, _pod(number), _preload_content=False)


def _pod(number: int) -> dict[str, Any]:
    app = _app(number)
    requests = {"cpu": "4", "memory": "32Gi", _SLICE: "1"}
    return {
        "metadata": {"name": f"{app}-{number}", "labels": {APP_LABEL: app}},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": {ACCELERATOR_LABEL: H100, NODE_TYPE_LABEL: ONLINE_NODE_TYPE},
            "tolerations": [
                {"key": key, "operator": "Exists", "effect": "NoSchedule"}
                for key in (GPU_TAINT_KEY, _MARK)
            ],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": _ZONE,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {APP_LABEL: app}},
                }
            ],
            "containers": [
                {
                    "name": "speech-server",
                    "image": "simulated",
                    "ports": [{"name": "http", "containerPort": HTTP_PORT}],
                    "resources": {"requests": requests, "limits": {_SLICE: "1"}},
                }
            ],
        },
    }


def _service(number: int) -> dict[str, Any]:
    app = _app(number)
    port = {"name": "http", "port": HTTP_PORT, "targetPort": "http", "appProtocol": "http"}
    return {"metadata": {"name": app}, "spec": {"selector": {APP_LABEL: app}, "ports": [port]}}


def _app(number: int) -> str:
    return f"voice-{number % SERVICES}"


def _all(create: Callable[[int], Any], numbers: Iterable[int]) -> None:
    with ThreadPoolExecutor(_CREATORS) as creators:
        for _ in creators.map(create, numbers):
            pass


_UNSCHEDULED = "spec.nodeName="
_NOT_RUNNING = "status.phase!=Running"


def _some(core: Any, selector: str) -> str | None:
    found = core.list_namespaced_pod(_NAMESPACE, field_selector=selector, limit=1)
    return f"there are pods with {selector}" if found.items else None


def _misplaced(core: Any) -> int:
    nodes = core.list_node(label_selector=f"{_MARK},{NODE_TYPE_LABEL}={ONLINE_NODE_TYPE}").items
    names = {node.metadata.name for node in nodes}
    pods = core.list_namespaced_pod(_NAMESPACE).items
    return sum(pod.spec.node_name not in names for pod in pods)


_MEMBERS = re.compile(
    rf"^envoy_cluster_membership_total\{{[^}}]*voice-\d+\.{_NAMESPACE}[^}}]*\}} (\d+)", re.MULTILINE
)


def _unknown_endpoints(core: Any, count: int) -> str | None:
    """Whether the gateway's Envoy has so many endpoints of the simulated Services."""
    stats = _of_pod(core, GATEWAY_NAMESPACE, "istio=public-gateway", 15090, "stats/prometheus")
    known = sum(map(int, _MEMBERS.findall(stats)))
    return None if known == count else f"the gateway's proxy knows {known} of {count} pods"


_BUCKET = re.compile(r'^pilot_proxy_convergence_time_bucket\{le="([^"]+)"\} (\d+)', re.MULTILINE)
_SUM = re.compile(r"^pilot_proxy_convergence_time_sum (\S+)", re.MULTILINE)

Convergence = tuple[dict[float, int], float]
"""How many pushes had converged within so many seconds, and the sum of all their seconds."""


def _convergence(core: Any) -> Convergence:
    metrics = _of_pod(core, "istio-system", "app=istiod", 15014, "metrics")
    buckets = {float(bound): int(count) for bound, count in _BUCKET.findall(metrics)}
    total = _SUM.search(metrics)
    return buckets, float(total[1]) if total else 0.0


def _described(before: Convergence, after: Convergence) -> str:
    counts = {bound: count - before[0].get(bound, 0) for bound, count in after[0].items()}
    pushes = max(counts.values(), default=0)
    if not pushes:
        return "none"
    mean = (after[1] - before[1]) / pushes
    within = min(bound for bound, count in counts.items() if count >= 0.99 * pushes)
    # Of istiod's metric pilot_proxy_convergence_time: from a change to its push to one proxy.
    return f"{pushes}, mean {mean * 1e3:.0f} ms, 99 % within {within:g} s"


def _of_pod(core: Any, namespace: str, selector: str, port: int, path: str) -> str:
    pods = core.list_namespaced_pod(namespace, label_selector=selector).items
    name = next(pod.metadata.name for pod in pods if is_ready(pod))
    return core.connect_get_namespaced_pod_proxy_with_path(
        f"{name}:{port}", namespace, path, _preload_content=False
    ).data.decode()


def _remove(core: Any) -> None:
    """Removes what is simulated, and waits until nothing of it is left."""
    if _namespace_is_there(core):
        core.delete_collection_namespaced_pod(_NAMESPACE, grace_period_seconds=0)
        core.delete_namespace(_NAMESPACE)
    core.delete_collection_node(label_selector=_MARK)
    leases: Any = CoordinationV1Api(core.api_client)
    names = [
        lease.metadata.name
        for lease in leases.list_namespaced_lease("kube-node-lease").items
        if lease.metadata.name.startswith(f"{_NAMESPACE}-")
    ]
    with ThreadPoolExecutor(_CREATORS) as removers:
        list(removers.map(lambda name: _delete_lease(leases, name), names))
    wait_until(
        lambda: "the namespace is there" if _namespace_is_there(core) else None,
        f"the namespace {_NAMESPACE} to go",
        _LONGEST_SECONDS,
    )


def _namespace_is_there(core: Any) -> bool:
    found = core.list_namespace(field_selector=f"metadata.name={_NAMESPACE}")
    return bool(found.items)


def _delete_lease(leases: Any, name: str) -> None:
    try:
        leases.delete_namespaced_lease(name, "kube-node-lease")
    except ApiException as error:
        if error.status != 404:  # its node's deletion was faster
            raise


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
