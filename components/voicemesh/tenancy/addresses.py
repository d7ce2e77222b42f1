"""Blocks of IP addresses, and those of them that no tenant's pod may reach."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from voicemesh.arguments import Faults

IpNetwork = IPv4Network | IPv6Network

FORBIDDEN: Final = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")))
"""Link-local addresses: 169.254.169.254, and fd00:ec2::254 in IPv6, are EC2's instance metadata,
which hands out the node's credentials.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"""


def check_block(faults: Faults, path: str, cidr: str) -> None:
    """Notes what is no block of addresses, and blocks of which nothing may be reached."""
    try:
        block = ip_network(cidr)
    except ValueError as error:
        faults.require(False, path, cidr, f"a block such as 10.1.2.0/24 ({error})")
        return
    is_outside = not any(_lies_within(block, forbidden) for forbidden in FORBIDDEN)
    faults.require(is_outside, path, cidr, "addresses that are not link-local")


def exceptions(cidr: str) -> list[str]:
    """The forbidden blocks that are part of a block."""
    block = ip_network(cidr)
    return [str(forbidden) for forbidden in FORBIDDEN if _lies_within(forbidden, block)]


def _lies_within(inner: IpNetwork, outer: IpNetwork) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False
