"""Who reaches whom on the live cluster: the table of every tenant, held to what is enforced."""

from __future__ import annotations

import json
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from kubernetes.client import ApiException, NetworkingV1Api
from kubernetes.stream import stream

from infra.local import images, network
from infra.local.commands import run_command
from infra.local.topology import HUB, HUB_ADDRESS, ONLINE, SYSTEM, Node
from tests.e2e.environment import NAMESPACE, Environment, eventually, is_ready
from tests.evaluators.network_policies import Cluster, Party
from tests.evaluators.tenant_access import PARTIES, TABLE, Row, differences
from voicemesh.contract import (
    GATEWAY_NAMESPACE,
    GPU_TAINT_KEY,
    HTTP_PORT,
    MONITORING_NAMESPACE,
)

_PROBE = "probe"
_HUB_PARTIES = ("pod identity agent", "instance metadata", "outside")

# A refusal comes from the target, so whoever is refused has reached it.
_REACHES = """\
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

LABELS = b"kubernetes.default.svc.cluster.local".split(b".")
NAME = b"".join(bytes([len(label)]) + label for label in LABELS) + bytes(1)
QUERY = b"vm" + bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + NAME + bytes([0, 1, 0, 1])

def reaches(connection):
    address, port, protocol = connection
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(1)
        try:
            client.connect((address, port))
            if protocol == "UDP":
                client.send(QUERY)
                client.recv(512)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return True

with ThreadPoolExecutor(32) as pool:
    outcomes = pool.map(reaches, json.loads(sys.argv[1]))
    print(*("yes" if reached else "no" for reached in outcomes))
"""

Runner = Callable[[Sequence[str]], str]
"""Runs a command where a party is, and returns what it printed."""


@dataclass(frozen=True)
class Scene:
    """The parties that there are, and from which of them connections can be tried."""

    parties: Mapping[str, Party]
    runners: Mapping[str, Runner]
    other_tenant: str
    networking: Any

    @property
    def rows(self) -> list[Row]:
        return [row for row in TABLE if row.source in self.runners and row.target in self.parties]

    def reached(self, rows: Sequence[Row]) -> dict[Row, bool]:
        """What becomes of each row's connection."""
        by_source = defaultdict(list)
        for row in rows:
            by_source[row.source].append(row)
        found: dict[Row, bool] = {}
        for source, of_source in by_source.items():
            tries = [
                [self.parties[row.target].address, row.port, row.protocol] for row in of_source
            ]
            printed = self.runners[source](["python3", "-c", _REACHES, json.dumps(tries)])
            outcomes = [outcome == "yes" for outcome in printed.split()]
            assert len(outcomes) == len(of_source), printed
            found |= dict(zip(of_source, outcomes, strict=True))
        return found

    def unlike_the_table(self) -> list[str]:
        reached = self.reached(self.rows)
        return [f"not so: {row}" for row in self.rows if reached[row] is not row.allowed]

    def live_policies(self) -> Cluster:
        """All policies as the API server gives them."""
        listed = self.networking.list_network_policy_for_all_namespaces(_preload_content=False)
        namespaces = {it.namespace: {} for it in self.parties.values() if it.namespace}
        return Cluster(json.loads(listed.data)["items"], namespaces)


@pytest.fixture(scope="module")
def scene(hosted: None) -> Iterator[Scene]:
    environment = Environment.running()
    core: Any = environment.core
    networking: Any = NetworkingV1Api(core.api_client)
    suffix = uuid.uuid4().hex[:8]
    other, stranger = f"other-{suffix}", f"stranger-{suffix}"
    with ExitStack() as stack:
        for namespace in (other, stranger, MONITORING_NAMESPACE):
            stack.enter_context(_namespace(core, namespace))
        for policy in networking.list_namespaced_network_policy(NAMESPACE).items:
            body = {"metadata": {"name": policy.metadata.name}, "spec": policy.spec}
            networking.create_namespaced_network_policy(other, body)
        probes = {
            "voice": (NAMESPACE, ONLINE),
            "other tenant": (other, ONLINE),
            "stranger": (stranger, SYSTEM),
            "gateway": (GATEWAY_NAMESPACE, SYSTEM),
            "monitoring": (MONITORING_NAMESPACE, SYSTEM),
        }
        pods = {
            name: stack.enter_context(_probe(core, f"{_PROBE}-{suffix}", namespace, node))
            for name, (namespace, node) in probes.items()
        }
        stack.enter_context(_addresses_in_the_hub([PARTIES[it].address for it in _HUB_PARTIES]))
        voice = _party(environment.speech_pods()[0])
        parties = {
            **{name: _party(pod) for name, pod in pods.items()},
            **{name: PARTIES[name] for name in _HUB_PARTIES},
            "neighbour": voice,
            "dns": _found(core, "kube-system", "k8s-app=kube-dns"),
            "metrics server": _found(core, "kube-system", "k8s-app=metrics-server"),
            "istiod": _found(core, "istio-system", "app=istiod"),
            "local s3": Party(HUB_ADDRESS),
            "own node": Party(ONLINE.address, node=ONLINE.name),
            "other node": Party(SYSTEM.address, node=SYSTEM.name),
            "api server": Party(SYSTEM.address, node=SYSTEM.name),
        }
        runners: dict[str, Runner] = {
            **{name: partial(_in_pod, core, pod) for name, pod in pods.items()},
            "own node": partial(_in_node, ONLINE),
            "other node": partial(_in_node, SYSTEM),
            "outside": _in_hub,
        }
        yield Scene(parties, runners, other, networking)


def test_everyone_reaches_whom_the_table_says(scene: Scene) -> None:
    assert {row.source for row in scene.rows} == scene.runners.keys()
    assert len(scene.rows) > 30
    # Enforcers hear of new pods a moment later than the kubelet.
    assert eventually(lambda: scene.unlike_the_table() == [] or None, 20, "the table") is True


def test_the_evaluator_says_of_the_live_policies_what_is_enforced(scene: Scene) -> None:
    assert list(differences(scene.live_policies(), scene.parties)) == []


def test_without_its_policies_a_tenant_is_open(scene: Scene) -> None:
    into = Row("stranger", "other tenant", HTTP_PORT, True)
    out = Row("other tenant", "instance metadata", 80, True)
    assert scene.reached([into, out]) == {into: False, out: False}
    scene.networking.delete_collection_namespaced_network_policy(scene.other_tenant)
    assert eventually(lambda: all(scene.reached([into, out]).values()), 20, "an open tenant")


@contextmanager
def _namespace(core: Any, name: str) -> Iterator[None]:
    """A namespace, unless it is there already."""
    try:
        core.create_namespace({"metadata": {"name": name}})
    except ApiException as error:
        if error.status != 409:
            raise
        yield
        return
    try:
        yield
    finally:
        core.delete_namespace(name)


@contextmanager
def _probe(core: Any, name: str, namespace: str, node: Node) -> Iterator[Any]:
    """A pod without a sidecar, which would connect in its place, and with nothing that listens."""
    core.create_namespaced_pod(namespace, _pod(name, node))
    try:
        yield eventually(
            lambda: _if_ready(core.read_namespaced_pod(name, namespace)), what=f"{name} to be ready"
        )
    finally:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)


def _pod(name: str, node: Node) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"app": _PROBE, "sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node.name},
            "tolerations": [{"key": GPU_TAINT_KEY, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "python",
                    "image": images.reference("speech-server"),
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
                }
            ],
        },
    }


@contextmanager
def _addresses_in_the_hub(addresses: Sequence[str]) -> Iterator[None]:
    """Addresses outside the cluster, at which nothing listens."""
    for address in addresses:
        run_command(_address("add", address), f"giving the hub {address}")
    try:
        yield
    finally:
        for address in addresses:
            run_command(_address("del", address), f"taking {address} from the hub")


def _address(verb: str, address: str) -> list[str]:
    return ["ip", "-n", HUB, "address", verb, f"{address}/32", "dev", "lo"]


def _if_ready(pod: Any) -> Any:
    return pod if is_ready(pod) else None


def _found(core: Any, namespace: str, selector: str) -> Party:
    pods = core.list_namespaced_pod(namespace, label_selector=selector).items
    return _party(next(pod for pod in pods if is_ready(pod)))


def _party(pod: Any) -> Party:
    ports = {
        port.name: (port.protocol, port.container_port)
        for container in pod.spec.containers
        for port in container.ports or []
        if port.name
    }
    address, labels = pod.status.pod_ip, pod.metadata.labels
    return Party(address, pod.metadata.namespace, labels, ports, pod.spec.node_name)


def _in_pod(core: Any, pod: Any, command: Sequence[str]) -> str:
    return stream(
        core.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        pod.metadata.namespace,
        command=list(command),
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
    )


def _in_node(node: Node, command: Sequence[str]) -> str:
    return run_command(network.in_node_network(node, _here(command)), "connecting from a node")


def _in_hub(command: Sequence[str]) -> str:
    return run_command(network.in_hub(_here(command)), "connecting from outside")


def _here(command: Sequence[str]) -> list[str]:
    return [sys.executable, *command[1:]]
