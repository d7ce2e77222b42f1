"""A node: containerd, kubelet and kube-proxy in its own network and file system."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from infra.local import cgroups, debian, image_store, images, network, processes, toolbox
from infra.local.certificates import write_private
from infra.local.commands import run_command
from infra.local.control_plane import Credentials
from infra.local.kube import KubeApi
from infra.local.kubeconfig import write_kubeconfig
from infra.local.node_root import ensure_root, node_root
from infra.local.processes import Daemon
from infra.local.topology import API_URL, DNS_SERVICE_ADDRESS, POD_RANGE, Node
from infra.local.waiting import wait_until

PROGRAMS = ("containerd", "kubelet", "kube-proxy", "network-policies")

_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Each pod hangs on its own link, so that what one pod of a node sends another is routed, and with
# it translated and filtered, like everything else.
_CNI_PLUGINS = ("ptp", "host-local", "loopback")
_CONTAINERD_SECONDS = 30.0
_READY_SECONDS = 90.0
_CLOCK_SECONDS = 1.0
"""Both the kernel's and the API's times are whole seconds."""
_ETC = "etc/kubernetes"
_CONTAINERD_CONFIG = "etc/containerd/config.toml"
_KUBELET_CONFIG = f"{_ETC}/kubelet.yaml"
_PROXY_CONFIG = f"{_ETC}/kube-proxy.yaml"


def containerd_root(node: Node) -> Path:
    """The folder in which the node's containerd keeps images."""
    return node_root(node) / "var/lib/containerd"


def ensure_containerd(node: Node) -> None:
    """Makes the node's files and starts its containerd where it does not run.

    Raises:
        LocalEnvironmentError: it ended or did not answer in time; shows its log's end.
    """
    ensure_root(node)
    root = node_root(node)
    write_private(root / _CONTAINERD_CONFIG, containerd_config().encode())
    conflist = root / "etc/cni/net.d/10-voicemesh.conflist"
    if not conflist.exists():  # istio-cni adds itself to it
        write_private(conflist, json.dumps(cni_config(node), indent=2).encode())
    for plugin in _CNI_PLUGINS:
        target = root / "opt/cni/bin" / plugin
        if not target.exists():
            shutil.copy2(debian.cni_plugins() / plugin, target)
    cgroups.ensure_group(node.name)
    containerd = _daemon(node, debian.binary("containerd"), _CONTAINERD_CONFIG)
    processes.ensure_daemon(containerd)

    def unready() -> str | None:
        pid = processes.still_running(containerd).pid
        listening = processes.listens_on_socket(pid, _CONTAINERD_SOCKET)
        return None if listening else f"nothing listens on {_CONTAINERD_SOCKET}"

    wait_until(unready, f"containerd of {node.name} to listen", _CONTAINERD_SECONDS, containerd.log)


def ensure_kubelet(node: Node, credentials: Credentials) -> None:
    """Starts the node's kubelet, kube-proxy and enforcer of policies where they do not run."""
    root = node_root(node)
    authority = credentials.cluster.certificate_path
    user = credentials.pair(f"kubelet-{node.name}", f"system:node:{node.name}", "system:nodes")
    serving = credentials.pair(
        f"kubelet-{node.name}-serving", node.name, hosts=(node.address, node.name)
    )
    proxy, policies = credentials.kube_proxy(), credentials.network_policies()
    for source, name in (
        (authority, "authority.crt"),
        (serving[0], "kubelet.crt"),
        (serving[1], "kubelet.key"),
    ):
        write_private(root / _ETC / name, source.read_bytes())
    write_kubeconfig(root / _ETC / "kubelet.kubeconfig", API_URL, authority, *user)
    write_kubeconfig(root / _ETC / "kube-proxy.kubeconfig", API_URL, authority, *proxy)
    write_kubeconfig(root / _ETC / "network-policies.kubeconfig", API_URL, authority, *policies)
    write_private(root / _KUBELET_CONFIG, yaml.safe_dump(kubelet_config(node)).encode())
    write_private(root / _PROXY_CONFIG, yaml.safe_dump(kube_proxy_config(node)).encode())
    for daemon in (_kubelet(node), _kube_proxy(node), _network_policies(node)):
        processes.ensure_daemon(daemon)


def load_images(node: Node, archives: Sequence[Path]) -> None:
    """Imports into a running node the archives that its store was not filled with."""
    root = containerd_root(node)
    loaded = image_store.read_loaded(root)
    missing = [archive for archive in archives if archive.name not in loaded]
    for archive in missing:
        ctr(node, "images", "import", str(archive))
    if missing:
        image_store.write_loaded(root, loaded | {archive.name for archive in archives})


def wait_for_node(node: Node, api: KubeApi) -> None:
    """Waits until the node's kubelet, as it runs now, says that it is ready.

    Raises:
        LocalEnvironmentError: it ended, or was not ready in time; shows its log's end.
    """
    kubelet = _kubelet(node)

    def unready() -> str | None:
        process = processes.still_running(kubelet)
        found = api.get("Node", node.name)
        return unready_reason(found, processes.started_at(process))

    wait_until(unready, f"the node {node.name} to be ready", _READY_SECONDS, kubelet.log)


def unready_reason(node: Mapping[str, Any] | None, since: float) -> str | None:
    """Why a Node object is not ready; None if it is.

    Args:
        node: the object, if there is one.
        since: when its kubelet started, in seconds since 1970: what an earlier one said of the
            node does not count.
    """
    if node is None:
        return "it has not registered"
    conditions = node.get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None or _seconds(ready["lastHeartbeatTime"]) < since - _CLOCK_SECONDS:
        return "it has not reported its state"
    return None if ready["status"] == "True" else ready.get("message") or ready.get("reason", "?")


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def ctr(node: Node, *arguments: str, timeout_seconds: float = 300) -> str:
    """Runs containerd's client on a node, in the namespace that Kubernetes uses."""
    argv = network.in_node(node, [str(debian.binary("ctr")), "--namespace=k8s.io", *arguments])
    what = f"ctr {' '.join(arguments[:2])} on {node.name}"
    return run_command(argv, what, timeout_seconds=timeout_seconds)


def containerd_config() -> str:
    """containerd's configuration, the same on every node."""
    return f"""\
version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.reference("pause")}"
  # Without CAP_SYS_RESOURCE no process may lower its score, and every sandbox would die of it.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


def cni_config(node: Node) -> dict[str, Any]:
    """How containerd connects the node's pods."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pod_range}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "0.4.0",
        "name": "voicemesh",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}],
    }


def kubelet_config(node: Node) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"/{_ETC}/authority.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"/{_ETC}/kubelet.crt",
        "tlsPrivateKeyFile": f"/{_ETC}/kubelet.key",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "resolvConf": "/etc/resolv.conf",
        "containerRuntimeEndpoint": f"unix://{_CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.ROOT_GROUP}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "protectKernelDefaults": True,
        # The machine's disk is mostly other people's, and no image could be pulled again.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1Gi",
            "imagefs.available": "1Gi",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "registerWithTaints": [_taint(taint) for taint in node.taints],
        "shutdownGracePeriod": "0s",
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        "enableProfilingHandler": False,
    }


def kube_proxy_config(node: Node) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": node.address,
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": f"/{_ETC}/kube-proxy.kubeconfig"},
        "clusterCIDR": POD_RANGE,
        "detectLocalMode": "ClusterCIDR",
        "nodePortAddresses": [f"{node.address}/32"],
        # These are settings of the whole machine.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "oomScoreAdj": 0,
    }


def _kubelet(node: Node) -> Daemon:
    labels = ",".join(f"{key}={value}" for key, value in sorted(node.all_labels.items()))
    return _daemon(
        node,
        toolbox.binary("kubelet"),
        _KUBELET_CONFIG,
        f"--kubeconfig=/{_ETC}/kubelet.kubeconfig",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={labels}",
    )


def _kube_proxy(node: Node) -> Daemon:
    return _daemon(node, toolbox.binary("kube-proxy"), _PROXY_CONFIG)


def _network_policies(node: Node) -> Daemon:
    return _daemon(
        node,
        toolbox.binary("network-policies"),
        None,
        f"--kubeconfig=/{_ETC}/network-policies.kubeconfig",
        f"--node={node.name}",
        f"--pod-range={POD_RANGE}",
    )


def _daemon(node: Node, program: Path, config: str | None, *flags: str) -> Daemon:
    """A program in the node; `config` is its configuration's path below the node's root."""
    # containerd looks for its shim and runc, and kube-proxy for nft, on their PATH.
    path = f"{debian.binary('containerd').parent}:{processes.PATH}"
    options = (f"--config=/{config}", *flags) if config else flags
    return Daemon(
        name=f"{node.name}-{program.name}",
        argv=network.in_node(node, [str(program), *options]),
        environment={"PATH": path},
        configuration=node_root(node) / config if config else None,
    )


def _taint(text: str) -> dict[str, str]:
    """A taint from `key=value:Effect`."""
    key, _, rest = text.partition("=")
    value, _, effect = rest.partition(":")
    return {"key": key, "value": value, "effect": effect}
