"""The embedded cluster, from nothing to three ready nodes with DNS, GPUs and volumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from infra.local import addons, control_plane, network, node, ownership, processes
from infra.local.cleanup import clear
from infra.local.control_plane import Credentials
from infra.local.kube import KubeApi
from infra.local.paths import CHECKOUT, LOGS, STATE
from infra.local.processes import Daemon
from infra.local.progress import Progress, silent
from infra.local.topology import FORWARDS, NODES


def ensure_cluster(progress: Progress = silent) -> None:
    """Brings the cluster up, or completes it, and waits until it serves.

    Call it with `ownership.lock()` held, after `ownership.claim()`.

    Raises:
        LocalEnvironmentError: names the part that failed and shows the last lines of its log.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    progress("network")
    network.ensure_network()
    ensure_forwarder()
    credentials = control_plane.ensure_credentials()
    progress("API server, and containerd on each node")
    with ThreadPoolExecutor() as pool:
        containerds = [pool.submit(node.ensure_containerd, each) for each in NODES]
        control_plane.ensure_api(credentials)
        control_plane.ensure_controllers(credentials)
        for containerd in containerds:
            containerd.result()
    with KubeApi(control_plane.KUBECONFIG_HOST) as api:
        _ensure_nodes(credentials, api, progress)
        progress("DNS, metrics, volumes")
        addons.ensure_addons(api, credentials)


def ensure_forwarder() -> None:
    """Starts the process that leads loopback ports into the environment."""
    routes = [f"{way.port}={way.host}:{way.target_port}" for way in FORWARDS]
    hub = str(network.hub_namespace())
    argv = [sys.executable, "-m", "infra.local.forwarder", hub, *routes]
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    processes.ensure_daemon(Daemon("forwarder", argv, {"PYTHONPATH": path}))


def down(progress: Progress = silent) -> None:
    """Ends and removes everything; call it with `ownership.lock()` held.

    Raises:
        LocalEnvironmentError: the environment belongs to another checkout, or something could not
            be removed.
    """
    ownership.check_may_stop()
    progress("ending processes, removing namespaces, mounts and files")
    clear()


def _ensure_nodes(credentials: Credentials, api: KubeApi, progress: Progress) -> None:
    progress("images onto each node")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: node.ensure_kubelet(each, credentials), NODES))
        progress("nodes")
        list(pool.map(lambda each: node.wait_for_node(each, api), NODES))


def main(arguments: Sequence[str]) -> None:
    with ownership.lock(print):
        if arguments == ["down"]:
            down(print)
        else:
            ownership.claim(print)
            ensure_cluster(print)


if __name__ == "__main__":
    main(sys.argv[1:])
