"""The environment's network: a hub namespace with a bridge, and one namespace per node.

Nothing of it is in the machine's own network. The hub has no way out and answers "unreachable" for
every address that is not a node's or a pod's, so no packet of the environment can leave the
machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.local.commands import run_command
from infra.local.mounts import mount_points
from infra.local.paths import RUN
from infra.local.topology import (
    HUB,
    HUB_ADDRESS,
    HUB_BRIDGE,
    NODES,
    POD_RANGE,
    SERVICE_RANGE,
    Node,
)

NAMESPACES = Path("/run/netns")
"""Where `ip netns` keeps named network namespaces."""

MOUNT_NAMESPACES = RUN / "mounts"

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # A node's own connections to Services, and their answers, take different interfaces.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


def hub_namespace() -> Path:
    return NAMESPACES / HUB


def mount_namespace(node: Node) -> Path:
    """File that keeps a node's mount namespace alive while nothing runs in it."""
    return MOUNT_NAMESPACES / node.name


def in_hub(argv: Sequence[str]) -> list[str]:
    """The command, run in the hub's network and otherwise where it would run anyway."""
    return ["nsenter", f"--net={hub_namespace()}", "--", *argv]


def in_node_network(node: Node, argv: Sequence[str]) -> list[str]:
    """The command, run in a node's network with the machine's files."""
    return ["nsenter", f"--net={NAMESPACES / node.network_namespace}", "--", *argv]


def in_node(node: Node, argv: Sequence[str]) -> list[str]:
    """The command, run in a node's network and with the node's files."""
    net = NAMESPACES / node.network_namespace
    mount = mount_namespace(node)
    return ["nsenter", f"--net={net}", f"--mount={mount}", "--", *argv]


def ensure_network() -> None:
    """Makes what is missing of the namespaces, bridge, links, addresses and routes.

    Raises:
        LocalEnvironmentError: the kernel refused a step; names it.
    """
    present = namespaces()
    for name in expected_namespaces():
        if name not in present:
            run_command(["ip", "netns", "add", name], f"making the network namespace {name}")
        _set_sysctls(name)
    _configure(HUB, [*new_links(_links(HUB)), *hub_commands()])
    for node in NODES:
        _configure(node.network_namespace, node_commands(node))


def expected_namespaces() -> tuple[str, ...]:
    return (HUB, *(node.network_namespace for node in NODES))


def namespaces() -> set[str]:
    """The machine's named network namespaces that belong to the environment: what `up` makes, and
    what tests have joined to the hub (`voicemesh-…`)."""
    if not NAMESPACES.is_dir():
        return set()
    return {
        entry.name
        for entry in NAMESPACES.iterdir()
        if entry.name == HUB or entry.name.startswith(f"{HUB}-")
    }


def delete_network() -> None:
    """Deletes the namespaces, and with them every interface, route and rule inside."""
    for name in namespaces():
        run_command(["ip", "netns", "delete", name], f"deleting the network namespace {name}")
    _unmount_empty_folder_of_namespaces()


def hub_commands() -> list[str]:
    """What `ip -batch` sets in the hub; each command may be repeated."""
    commands = ["link set lo up", f"address replace {HUB_ADDRESS}/24 dev {HUB_BRIDGE}"]
    commands.append(f"link set {HUB_BRIDGE} up")
    for node in NODES:
        commands.append(f"link set {node.link} master {HUB_BRIDGE} up")
        commands.append(f"route replace {node.pod_range} via {node.address}")
    # Only a kube-proxy knows where a Service leads, and the hub has none.
    commands += [f"route replace unreachable {SERVICE_RANGE}", "route replace unreachable default"]
    return commands


def node_commands(node: Node) -> list[str]:
    """What `ip -batch` sets in a node; each command may be repeated."""
    commands = ["link set lo up", f"address replace {node.address}/24 dev eth0", "link set eth0 up"]
    commands += [
        f"route replace {other.pod_range} via {other.address}" for other in NODES if other != node
    ]
    # A pod range that no route above knows must not go round in circles through the hub.
    commands.append(f"route replace unreachable {POD_RANGE}")
    commands.append(f"route replace default via {HUB_ADDRESS}")
    return commands


def new_links(present: set[str]) -> list[str]:
    """What `ip -batch` adds to the hub, given the links that it has."""
    commands = []
    if HUB_BRIDGE not in present:
        commands.append(f"link add {HUB_BRIDGE} type bridge")
    commands += [
        f"link add {node.link} type veth peer name eth0 netns {node.network_namespace}"
        for node in NODES
        if node.link not in present
    ]
    return commands


def _links(namespace: str) -> set[str]:
    argv = ["ip", "-json", "-netns", namespace, "link"]
    shown = run_command(argv, f"listing the links of {namespace}")
    return {link["ifname"] for link in json.loads(shown)}


def _configure(namespace: str, commands: Iterable[str]) -> None:
    run_command(
        ["ip", "-netns", namespace, "-batch", "-"],
        f"setting up the network namespace {namespace}",
        stdin="\n".join(commands) + "\n",
    )


def _set_sysctls(namespace: str) -> None:
    writes = "; ".join(f"echo {value} > /proc/sys/{key}" for key, value in _SYSCTLS.items())
    run_command(
        ["nsenter", f"--net={NAMESPACES / namespace}", "--", "sh", "-ec", writes],
        f"setting the sysctls of the network namespace {namespace}",
    )


def _unmount_empty_folder_of_namespaces() -> None:
    """`ip netns add` mounts its folder on itself; without namespaces that mount holds nothing."""
    if not NAMESPACES.is_dir() or any(NAMESPACES.iterdir()):
        return
    if NAMESPACES in mount_points():
        run_command(["umount", str(NAMESPACES)], f"unmounting {NAMESPACES}")
    shutil.rmtree(NAMESPACES, ignore_errors=True)
