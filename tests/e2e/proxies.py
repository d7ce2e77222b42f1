"""What a proxy holds of a voice: its clusters, who is in them, and what it counted."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.lab import Proxy

EJECTED = "failed_outlier_check"


def cluster_of(proxy: Proxy, voice: str, subset: str) -> dict[str, Any]:
    """The cluster of a voice's subset, as the proxy has it."""
    for config in json.loads(proxy.ask_admin("/config_dump"))["configs"]:
        for entry in config.get("dynamic_active_clusters", []):
            if _is_of(entry["cluster"]["name"], voice, subset):
                return entry["cluster"]
    raise AssertionError(f"no cluster for {subset} of {voice}")


def cluster_stats(proxy: Proxy, voice: str, subset: str) -> dict[str, int]:
    """Counters and gauges of the cluster, by the last parts of their names."""
    prefix = f"cluster.outbound.[0-9]+.{subset}.{voice}[.]"
    found = proxy.stats(prefix)
    return {name.partition(";.")[2]: value for name, value in found.items()}


def hosts(proxy: Proxy, voice: str, subset: str) -> dict[str, set[str]]:
    """By the address of each pod of the cluster: what is wrong with it, if anything."""
    found: dict[str, set[str]] = {}
    for cluster in json.loads(proxy.ask_admin("/clusters?format=json"))["cluster_statuses"]:
        if not _is_of(cluster["name"], voice, subset):
            continue
        for host in cluster.get("host_statuses", []):
            address = host["address"]["socket_address"]["address"]
            health = host.get("health_status", {})
            found[address] = {name for name, value in health.items() if value is True}
    return found


def ejected(proxy: Proxy, voice: str, subset: str) -> set[str]:
    """Addresses of the cluster's pods that are ejected."""
    return {address for address, faults in hosts(proxy, voice, subset).items() if EJECTED in faults}


def _is_of(cluster: str, voice: str, subset: str) -> bool:
    parts = cluster.split("|")
    return len(parts) == 4 and parts[2] == subset and parts[3].startswith(f"{voice}.")
