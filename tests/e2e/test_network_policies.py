"""NetworkPolicies hold, on one node and between two."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes.client import NetworkingV1Api
from kubernetes.stream import stream

from infra.local import images
from tests.e2e.environment import Environment, eventually, is_ready
from voicemesh.contract import GPU_TAINT_KEY

PORT = 8000
_CONNECT = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).close()
    print("connected")
except TimeoutError:
    print("timed out")
"""


@dataclass(frozen=True)
class Neighbours:
    """A server on `online`, and two clients: one beside it, one on `offline`."""

    core: Any
    networking: Any
    namespace: str

    def connect(self, client: str) -> str:
        """What becomes of a new connection from a client to the server."""
        server = self.core.read_namespaced_pod("server", self.namespace)
        return stream(
            self.core.connect_get_namespaced_pod_exec,
            client,
            self.namespace,
            command=["python3", "-c", _CONNECT, server.status.pod_ip, str(PORT)],
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
        ).strip()

    def becomes(self, client: str, outcome: str) -> bool:
        return eventually(
            lambda: self.connect(client) == outcome, 20, f"a connection from {client}: {outcome}"
        )


@pytest.fixture
def neighbours(environment: Environment) -> Iterator[Neighbours]:
    namespace = f"policies-{uuid.uuid4().hex[:8]}"
    core: Any = environment.core
    core.create_namespace({"metadata": {"name": namespace}})
    core.create_namespaced_pod(namespace, pod("server", "online", serve=True))
    core.create_namespaced_pod(namespace, pod("beside", "online"))
    core.create_namespaced_pod(namespace, pod("across", "offline"))
    try:
        eventually(
            lambda: all(is_ready(it) for it in core.list_namespaced_pod(namespace).items),
            what="all pods to be ready",
        )
        yield Neighbours(core, NetworkingV1Api(core.api_client), namespace)
    finally:
        core.delete_namespace(namespace)


def pod(name: str, node: str, serve: bool = False) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "python",
        "image": images.reference("speech-server"),
        "command": ["python3", "-c", "import signal; signal.pause()"],
    }
    if serve:
        container["command"] = ["python3", "-m", "http.server", str(PORT), "--directory", "/var"]
        container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return {
        "metadata": {"name": name, "labels": {"role": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [
                {"key": GPU_TAINT_KEY, "operator": "Exists"},
                {"key": "workload", "operator": "Exists"},
            ],
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def policy(*allowed: str) -> dict[str, Any]:
    """Denies every connection to the server but those of the pods with an allowed role."""
    rules = [{"from": [{"podSelector": {"matchLabels": {"role": role}}}]} for role in allowed]
    return {
        "metadata": {"name": "server"},
        "spec": {
            "podSelector": {"matchLabels": {"role": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


@pytest.mark.parametrize(("friend", "stranger"), [("beside", "across"), ("across", "beside")])
def test_a_policy_admits_whom_it_names_and_nobody_else(
    neighbours: Neighbours, friend: str, stranger: str
) -> None:
    networking = neighbours.networking
    assert neighbours.connect(friend) == neighbours.connect(stranger) == "connected"

    networking.create_namespaced_network_policy(neighbours.namespace, policy(friend))
    assert neighbours.becomes(stranger, "timed out")
    assert neighbours.connect(friend) == "connected"

    networking.delete_namespaced_network_policy("server", neighbours.namespace)
    assert neighbours.becomes(stranger, "connected")


def test_a_policy_that_denies_everything_does_not_stop_the_kubelets_probes(
    neighbours: Neighbours,
) -> None:
    networking = neighbours.networking
    networking.create_namespaced_network_policy(neighbours.namespace, policy())
    assert neighbours.becomes("beside", "timed out")
    core = neighbours.core
    server = core.read_namespaced_pod("server", neighbours.namespace)
    denied_since = server.metadata.creation_timestamp

    # A new server has to be probed from the start.
    core.delete_namespaced_pod("server", neighbours.namespace, grace_period_seconds=0)
    core.create_namespaced_pod(neighbours.namespace, pod("server", "online", serve=True))

    def probed() -> bool:
        found = core.read_namespaced_pod("server", neighbours.namespace)
        return found.metadata.creation_timestamp > denied_since and is_ready(found)

    assert eventually(probed, what="the new server to pass its probe")
    assert neighbours.connect("beside") == "timed out"
