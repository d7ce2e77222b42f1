"""The plan of the environment: its nodes, and every address and port in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from voicemesh.contract import (
    ACCELERATOR_LABEL,
    GPU_TAINT_KEY,
    GPU_TAINT_VALUE,
    H100,
    NODE_TYPE_LABEL,
    OFFLINE_NODE_TYPE,
    OFFLINE_WORKLOAD,
    ONLINE_NODE_TYPE,
    WORKLOAD_TAINT_KEY,
)

HUB = "voicemesh"
"""Network namespace that joins the nodes; everything of the environment hangs on its bridge."""

HUB_BRIDGE = "vm0"
HUB_ADDRESS = "10.245.0.1"
NODE_RANGE = "10.245.0.0/24"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
API_PORT = 6443
AWS_PORT = 4566
ISSUER_PORT = 4567
# Of 30000 to 30085, from which Kubernetes assigns none by itself while others are free
# (https://kubernetes.io/blog/2023/05/11/nodeport-dynamic-and-static-allocation/).
GATEWAY_TLS_NODE_PORT = 30043
GATEWAY_HTTP_NODE_PORT = 30080

_ZONE_LABEL = "topology.kubernetes.io/zone"
_REGION_LABEL = "topology.kubernetes.io/region"


@dataclass(frozen=True)
class Node:
    """One Kubernetes node, with a network and a mount namespace of its own.

    Attributes:
        name: its name in the cluster.
        number: its place in the address plan, from 1.
        zone: its availability zone.
        labels: labels that its kubelet registers, besides the zone's.
        taints: taints that its kubelet registers, each `key=value:Effect`.
        gpus: how many GPUs it advertises; none of them exists.
        volumes: how many PersistentVolumes it offers.
    """

    name: str
    number: int
    zone: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    gpus: int = 0
    volumes: int = 0

    @property
    def address(self) -> str:
        return f"10.245.0.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def network_namespace(self) -> str:
        return f"{HUB}-{self.name}"

    @property
    def link(self) -> str:
        """Name of the node's interface in the hub; an interface name has 15 characters at most."""
        return f"vm-{self.name}"

    @property
    def all_labels(self) -> dict[str, str]:
        return {_ZONE_LABEL: self.zone, _REGION_LABEL: "local", **self.labels}


_GPU_TAINT = f"{GPU_TAINT_KEY}={GPU_TAINT_VALUE}:NoSchedule"

SYSTEM = Node(name="system", number=1, zone="local-a", volumes=4)
"""Runs the control plane in its network, and the pods that everything needs."""

ONLINE = Node(
    name="online",
    number=2,
    zone="local-a",
    labels={ACCELERATOR_LABEL: H100, NODE_TYPE_LABEL: ONLINE_NODE_TYPE},
    taints=(_GPU_TAINT,),
    gpus=8,
    volumes=4,
)

OFFLINE = Node(
    name="offline",
    number=3,
    zone="local-b",
    labels={ACCELERATOR_LABEL: H100, NODE_TYPE_LABEL: OFFLINE_NODE_TYPE},
    taints=(_GPU_TAINT, f"{WORKLOAD_TAINT_KEY}={OFFLINE_WORKLOAD}:NoSchedule"),
    gpus=8,
)

NODES = (SYSTEM, ONLINE, OFFLINE)

API_URL = f"https://{SYSTEM.address}:{API_PORT}"
"""The API server as seen from the hub, the nodes and the pods."""


@dataclass(frozen=True)
class Forward:
    """A port of the machine's loopback, and where in the environment it leads."""

    purpose: str
    port: int
    host: str
    target_port: int


FORWARDS = (
    Forward("HTTPS of the gateway", 8443, SYSTEM.address, GATEWAY_TLS_NODE_PORT),
    Forward("HTTP of the gateway", 8080, SYSTEM.address, GATEWAY_HTTP_NODE_PORT),
    Forward("the API server", API_PORT, SYSTEM.address, API_PORT),
    Forward("the AWS server", AWS_PORT, HUB_ADDRESS, AWS_PORT),
    Forward("the token issuer", ISSUER_PORT, HUB_ADDRESS, ISSUER_PORT),
)
