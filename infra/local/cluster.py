"""The embedded cluster, from nothing to three ready nodes with DNS, GPUs and volumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local import (
    addons,
    control_plane,
    image_store,
    limits,
    network,
    node,
    ownership,
    processes,
)
from infra.local.cleanup import clear
from infra.local.forwarder import FORWARDER
from infra.local.kube import KubeApi
from infra.local.node_root import ensure_namespaces_folder
from infra.local.paths import CHECKOUT, LOGS, STATE
from infra.local.processes import Daemon
from infra.local.progress import Progress, silent
from infra.local.topology import FORWARDS, NODES, Node
from infra.local.waiting import wait_until

_FORWARDER_SECONDS = 20.0
_DAEMONS = (
    FORWARDER,
    *control_plane.PROGRAMS,
    *(f"{each.name}-{program}" for each in NODES for program in node.PROGRAMS),
)


def ensure_cluster(archives: Mapping[str, Path], progress: Progress = silent) -> None:
    """Brings the cluster up, or completes it, and waits until it serves.

    Call it with `ownership.lock()` held, after `ownership.claim()`.

    Args:
        archives: the image archives that the nodes get, as `images.ensure_images` returns them.
        progress: told what is being done.

    Raises:
        LocalEnvironmentError: names the part that failed and shows the last lines of its log.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    limits.raise_inotify_instances()
    progress("network")
    network.ensure_network()
    ensure_namespaces_folder()
    ensure_forwarder()
    credentials = control_plane.ensure_credentials()
    progress("API server, and containerd on each node")
    with ThreadPoolExecutor() as pool:
        containerds = pool.submit(_ensure_containerds, archives, progress)
        control_plane.ensure_api(credentials)
        control_plane.ensure_controllers(credentials)
        containerds.result()
    with KubeApi(control_plane.KUBECONFIG_HOST) as api:
        progress("nodes")
        addons.allow_policy_enforcers(api)
        _on_each_node(lambda each: node.ensure_kubelet(each, credentials))
        _on_each_node(lambda each: node.wait_for_node(each, api))
        progress("DNS, metrics, volumes")
        addons.ensure_addons(api, credentials)
    processes.check_running(_DAEMONS)


def ensure_forwarder() -> None:
    """Starts the process that leads loopback ports into the environment.

    Raises:
        LocalEnvironmentError: it ended, such as when another program took one of its ports.
    """
    routes = [f"{way.port}={way.host}:{way.target_port}" for way in FORWARDS]
    hub = str(network.hub_namespace())
    argv = [sys.executable, "-m", "infra.local.forwarder", hub, *routes]
    forwarder = Daemon(FORWARDER, argv, {"PYTHONPATH": str(CHECKOUT)})
    processes.ensure_daemon(forwarder)

    def unready() -> str | None:
        processes.still_running(forwarder)
        silent_ports = {way.port for way in FORWARDS} - processes.listening_ports(os.getpid())
        return f"nothing listens on {sorted(silent_ports)}" if silent_ports else None

    wait_until(unready, "the forwarder to listen", _FORWARDER_SECONDS, forwarder.log)


def down(progress: Progress = silent) -> None:
    """Ends and removes everything; call it with `ownership.lock()` held.

    Raises:
        LocalEnvironmentError: the environment belongs to another checkout, or something could not
            be removed.
    """
    ownership.check_may_stop()
    progress("ending processes, removing namespaces, mounts and files")
    clear()
    ownership.forget()


def _ensure_containerds(archives: Mapping[str, Path], progress: Progress) -> None:
    seed_nodes(archives, progress)
    _on_each_node(node.ensure_containerd)
    _on_each_node(lambda each: node.load_images(each, list(archives.values())))


def seed_nodes(archives: Mapping[str, Path], progress: Progress) -> None:
    """Gives the nodes that were never started all images at once."""
    bare = [each for each in NODES if not image_store.is_seeded(node.containerd_root(each))]
    if bare:
        store = image_store.ensure_store(list(archives.values()), progress)
        for each in bare:
            image_store.seed(node.containerd_root(each), store)


def _on_each_node(action: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(action, NODES))
