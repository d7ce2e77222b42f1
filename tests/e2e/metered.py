"""The lab's gateway that counts requests, as tests of quotas use and change it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kubernetes.client

from infra.local.topology import NODES
from tests.e2e.environment import eventually
from tests.e2e.lab import Caller, Lab, Proxy, Upstream
from tests.e2e.load import Answer, Request
from voicemesh.contract import APP_LABEL
from voicemesh.gateway.quota import RATELIMIT
from voicemesh.gateway.quota_service import REDIS, REDIS_PORT

# As programs/lab.py has them.
VOICE: Final = "metered"
NAMESPACE: Final = "lab-metered"
GATEWAY: Final = "metered-gateway"
HTTPS_NODE_PORT: Final = 30046
BUDGET: Final = 30
GENEROUS: Final = ("generous", 45)
WITHOUT_TENANT: Final = 7

FILTER: Final = ("EnvoyFilter", NAMESPACE, f"{GATEWAY}-quota")
UNIT_SECONDS: Final = 60
LONGEST_CHECK_SECONDS: Final = 12
CONNECTIONS: Final = 16

Config = dict[str, Any]


def somebody() -> str:
    """A tenant that has made no request yet."""
    return f"tenant-{uuid.uuid4().hex[:12]}"


def seconds_left() -> float:
    """Until the minute is over in which requests are counted together."""
    return UNIT_SECONDS - time.time() % UNIT_SECONDS


@dataclass(frozen=True)
class Metered:
    """That gateway, what counts for it, and the voice behind it."""

    lab: Lab

    def ask(self, tenant: str | None, count: int, **fields: Any) -> list[Answer]:
        """Sends requests with a tenant's token, half of them to each gateway if there are two."""
        token = self.lab.token(tenant=tenant)
        return self.send(self.lab.asking(token=token, **fields), count)

    def send(self, request: Request, count: int) -> list[Answer]:
        """Sends a request `count` times, to all gateways alike, in one unit of time."""
        self.begin(LONGEST_CHECK_SECONDS)
        callers = self.callers()
        shares = [len(range(number, count, len(callers))) for number in range(len(callers))]
        running = [
            caller.start(*[request] * share, concurrency=min(CONNECTIONS, share))
            for caller, share in zip(callers, shares, strict=True)
            if share
        ]
        return [answer for each in running for answer in each.finish()]

    def begin(self, seconds: float) -> None:
        """Awaits a moment after which the minute lasts for this long."""
        if seconds_left() < seconds:
            eventually(lambda: seconds_left() >= seconds, UNIT_SECONDS, "the next minute begins")

    def callers(self) -> list[Caller]:
        """The client outside the cluster, by way of each node with a gateway."""
        nodes = {pod.spec.node_name for pod in self.pods(GATEWAY)}
        return [
            self.lab.public(VOICE, address=node.address, port=HTTPS_NODE_PORT)
            for node in NODES
            if node.name in nodes
        ]

    def pods(self, app: str) -> list[Any]:
        """Pods that are Ready."""
        return self.lab.ready_pods(NAMESPACE, **{APP_LABEL: app})

    def gateways(self) -> list[Proxy]:
        """The proxies of the gateway's pods."""
        return [Proxy(pod.metadata.name) for pod in self.pods(GATEWAY)]

    def upstream(self) -> Upstream:
        """The voice's only server."""
        (upstream,) = self.lab.upstreams(VOICE).values()
        return upstream

    def questions(self) -> list[int]:
        """How often each gateway has asked, and got an answer."""
        return [
            sum(proxy.stats(r"\.ratelimit\.(ok|over_limit)$").values()) for proxy in self.gateways()
        ]

    def scale(self, app: str, replicas: int) -> None:
        """Has so many pods of something, all ready, and no others that are."""
        deployments = kubernetes.client.AppsV1Api(self.lab.core.api_client)
        deployments.patch_namespaced_deployment_scale(
            app, NAMESPACE, {"spec": {"replicas": replicas}}
        )
        eventually(lambda: len(self.pods(app)) == replicas, 120, f"{replicas} pods of {app}")

    @contextmanager
    def two_gateways(self) -> Iterator[None]:
        """For a while, there are two gateways, and requests come to both."""
        self.scale(GATEWAY, 2)
        try:
            # A pod is ready before every node's kube-proxy knows it.
            eventually(self._each_is_asked, 60, "requests come to each gateway")
            yield
        finally:
            self.scale(GATEWAY, 1)

    def _each_is_asked(self) -> bool:
        before = self.questions()
        self.ask(somebody(), 2 * CONNECTIONS)
        return all(now > then for then, now in zip(before, self.questions(), strict=True))

    def forget(self) -> None:
        """Gives every tenant its budget anew."""
        (pod,) = self.pods(REDIS)
        # Of the pod's processes, Redis itself has overwritten its environment.
        network = Proxy(pod.metadata.name).network
        assert said(network, "127.0.0.1", REDIS_PORT, "FLUSHALL") == "+OK"

    @contextmanager
    def asking_otherwise(self, change: Callable[[Config], object]) -> Iterator[None]:
        """For a while, the gateway's filter is changed so, in every proxy."""
        patches = copy.deepcopy(self.lab.read(*FILTER)["spec"]["configPatches"])
        config = patches[0]["patch"]["value"]["typed_config"]
        change(config)
        # Tells that the change has arrived.
        mark = config["stat_prefix"] = f"control-{uuid.uuid4().hex[:8]}"
        with self.lab.patched(*FILTER, {"configPatches": patches}):
            eventually(lambda: all(self._filters_with(mark)), 60, "the filter is changed")
            yield
        eventually(lambda: not any(self._filters_with(mark)), 60, "the filter is as it was")

    @contextmanager
    def not_asking(self) -> Iterator[None]:
        """For a while, the gateway has no such filter."""
        with self.lab.without(*FILTER):
            eventually(lambda: not any(self._filters_with(RATELIMIT)), 60, "the filter is gone")
            yield
        eventually(lambda: all(self._filters_with(RATELIMIT)), 60, "the filter is there")

    def _filters_with(self, text: str) -> list[bool]:
        return [text in _active_listeners(proxy) for proxy in self.gateways()]

    @contextmanager
    def other_limits(self, change: Callable[[str], str], seen: str) -> Iterator[None]:
        """For a while, the file of the limits is changed so.

        Args:
            change: makes the new text from that of the file.
            seen: how the header with a new tenant's limit begins then.
        """
        before = self.lab.core.read_namespaced_config_map(RATELIMIT, NAMESPACE).data
        ((name, text),) = before.items()
        usual = self._limit()
        self._set_limits({name: change(text)}, seen)
        try:
            yield
        finally:
            self._set_limits(before, usual)

    def _set_limits(self, data: Mapping[str, str], seen: str) -> None:
        self.lab.core.patch_namespaced_config_map(RATELIMIT, NAMESPACE, {"data": data})
        for pod in self.pods(RATELIMIT):
            # A kubelet looks at the files of a pod about once a minute, or when the pod changes.
            nudge = {"metadata": {"annotations": {"tests.voicemesh.io/nudge": uuid.uuid4().hex}}}
            self.lab.core.patch_namespaced_pod(pod.metadata.name, NAMESPACE, nudge)
        eventually(lambda: self._limit() == seen, 30, f"the limit is {seen}")

    def _limit(self) -> str:
        (answer,) = self.send(self.lab.asking(token=self.lab.token(tenant=somebody())), 1)
        return answer.headers["x-ratelimit-limit"]

    @contextmanager
    def down(self, app: str) -> Iterator[None]:
        """For a while, there is no pod of something that counts."""
        self.scale(app, 0)
        self.lab.core.delete_collection_namespaced_pod(
            NAMESPACE, label_selector=f"{APP_LABEL}={app}", grace_period_seconds=0
        )
        eventually(lambda: not any(self._counted()), 60, f"nobody counts without {app}")
        try:
            yield
        finally:
            self.scale(app, 1)
            eventually(lambda: all(self._counted()), 60, "requests are counted again")

    @contextmanager
    def reachable(self, app: str) -> Iterator[None]:
        """For a while, no network policy keeps anybody from something that counts."""
        policies: Any = kubernetes.client.NetworkingV1Api(self.lab.core.api_client)
        spec = policies.read_namespaced_network_policy(app, NAMESPACE).spec
        policies.delete_namespaced_network_policy(app, NAMESPACE)
        try:
            yield
        finally:
            policies.create_namespaced_network_policy(
                NAMESPACE, {"metadata": {"name": app}, "spec": spec}
            )

    def _counted(self) -> list[bool]:
        # More than the service has connections to Redis: each of those is used, and a broken one
        # noticed.
        answers = self.ask(somebody(), 8 * CONNECTIONS)
        return ["x-ratelimit-limit" in answer.headers for answer in answers]


def said(network: Path, address: str, port: int, question: str) -> str:
    """What somebody answers first to a line of text sent from a network; nothing if it hangs up."""
    program = (
        "import socket, sys\n"
        "try:\n"
        "    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as there:\n"
        "        there.sendall(sys.argv[3].encode() + b'\\r\\n')\n"
        "        sys.stdout.buffer.write(there.recv(100))\n"
        "except OSError: pass\n"
    )
    argv = ["nsenter", f"--net={network}", "--", sys.executable, "-c", program]
    done = subprocess.run(
        [*argv, address, str(port), question], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _active_listeners(proxy: Proxy) -> str:
    parts = json.loads(proxy.config())["configs"]
    listeners = [each for part in parts for each in part.get("dynamic_listeners", [])]
    return json.dumps([each.get("active_state") for each in listeners])
