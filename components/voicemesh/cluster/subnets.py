"""Which addresses the subnets of a VPC get."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_ZONES: Final = 6
"""Zones that have room; no region offers more."""

VPC_PREFIXES: Final = range(16, 21)
"""AWS takes no VPC larger than /16; beyond /20 a zone has fewer than 510 addresses for its pods."""

_PARTS: Final = 8


@dataclass(frozen=True)
class ZoneSubnets:
    """The two subnets of a zone."""

    private: str
    public: str


def plan_subnets(vpc_cidr: str, zones: Sequence[str]) -> Mapping[str, ZoneSubnets]:
    """The subnets of each zone: an eighth of the VPC for nodes and pods, a 64th for what faces the
    Internet. They follow from a zone's place alone, so that a zone can be added at the end.

    Raises:
        ValueError: there are more zones than places.
    """
    if len(zones) > MAX_ZONES:
        raise ValueError(f"{len(zones)} zones; there is room for {MAX_ZONES}")
    eighths = list(_divide(ipaddress.IPv4Network(vpc_cidr)))
    public = _divide(eighths[-1])
    return {
        zone: ZoneSubnets(private=str(eighths[place]), public=str(public[place]))
        for place, zone in enumerate(zones)
    }


def _divide(network: ipaddress.IPv4Network) -> list[ipaddress.IPv4Network]:
    return list(network.subnets(prefixlen_diff=_PARTS.bit_length() - 1))
