"""The plan of the embedded cluster's addresses, links and routes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest

from infra.local import network
from infra.local.topology import (
    API_SERVICE_ADDRESS,
    DNS_SERVICE_ADDRESS,
    FORWARDS,
    HUB_ADDRESS,
    HUB_BRIDGE,
    NODE_RANGE,
    NODES,
    OFFLINE,
    ONLINE,
    POD_RANGE,
    SERVICE_RANGE,
    SYSTEM,
    Node,
)

LONGEST_INTERFACE_NAME = 15


def collisions(nodes: tuple[Node, ...]) -> list[str]:
    """Names of nodes that share an address or addresses of pods."""
    return [
        f"{one.name}/{other.name}"
        for one, other in combinations(nodes, 2)
        if one.address == other.address
        or IPv4Network(one.pod_range).overlaps(IPv4Network(other.pod_range))
    ]


def test_no_two_nodes_share_an_address() -> None:
    assert collisions(NODES) == []


def test_two_nodes_of_one_number_would_share_addresses() -> None:
    assert collisions((ONLINE, replace(OFFLINE, number=ONLINE.number))) == ["online/offline"]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_the_addresses_of_a_node_are_in_their_ranges(node: Node) -> None:
    assert IPv4Address(node.address) in IPv4Network(NODE_RANGE)
    assert IPv4Network(node.pod_range).subnet_of(IPv4Network(POD_RANGE))


def test_the_ranges_of_nodes_pods_and_services_are_apart() -> None:
    ranges = [IPv4Network(text) for text in (NODE_RANGE, POD_RANGE, SERVICE_RANGE)]
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))


def test_the_fixed_services_are_in_the_range_of_services() -> None:
    for address in (API_SERVICE_ADDRESS, DNS_SERVICE_ADDRESS):
        assert IPv4Address(address) in IPv4Network(SERVICE_RANGE)


def test_the_kernel_takes_the_names_of_all_links() -> None:
    assert all(len(name) <= LONGEST_INTERFACE_NAME for name in (HUB_BRIDGE, *_links()))


def test_every_forwarded_port_is_another_one() -> None:
    assert len({way.port for way in FORWARDS}) == len(FORWARDS)


def test_only_the_system_node_has_no_taint_and_no_gpu() -> None:
    assert [node.name for node in NODES if not node.taints] == [SYSTEM.name]
    assert [node.name for node in NODES if not node.gpus] == [SYSTEM.name]


def test_only_the_offline_node_keeps_online_work_away() -> None:
    keeps_away = {node.name: "workload=offline:NoSchedule" in node.taints for node in NODES}
    assert keeps_away == {"system": False, "online": False, "offline": True}


def test_the_hub_has_no_way_out() -> None:
    routes = [command for command in network.hub_commands() if command.startswith("route ")]
    assert [route for route in routes if "default" in route] == [
        "route replace unreachable default"
    ]
    gateways = {route.partition(" via ")[2] for route in routes if " via " in route}
    assert gateways == {node.address for node in NODES}


def test_the_hub_sends_no_service_address_anywhere() -> None:
    assert f"route replace unreachable {SERVICE_RANGE}" in network.hub_commands()


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_a_node_knows_the_way_to_the_pods_of_all_others_and_of_none_besides(node: Node) -> None:
    commands = network.node_commands(node)
    for other in NODES:
        route = f"route replace {other.pod_range} via {other.address}"
        assert (route in commands) == (other != node)
    assert f"route replace unreachable {POD_RANGE}" in commands
    assert f"route replace default via {HUB_ADDRESS}" in commands


def test_what_is_repeated_can_be_repeated() -> None:
    commands = [*network.hub_commands(), *(c for n in NODES for c in network.node_commands(n))]
    assert [c for c in commands if " replace " not in c and not c.startswith("link set ")] == []


def test_only_missing_links_are_added() -> None:
    assert network.new_links({HUB_BRIDGE, *_links()}) == []
    assert network.new_links({HUB_BRIDGE, SYSTEM.link, OFFLINE.link}) == [
        f"link add {ONLINE.link} type veth peer name eth0 netns {ONLINE.network_namespace}"
    ]


def _links() -> list[str]:
    return [node.link for node in NODES]
