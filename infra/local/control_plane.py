"""The control plane: etcd, API server, controller-manager and scheduler.

They run in the system node's network, so that the API server reaches webhooks and other Services
through that node's kube-proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local import debian, network, processes, toolbox
from infra.local.certificates import (
    Authority,
    ensure_authority,
    ensure_pair,
    ensure_service_account_keys,
)
from infra.local.kube import KubeApi
from infra.local.kubeconfig import write_kubeconfig
from infra.local.paths import STATE
from infra.local.processes import Daemon
from infra.local.topology import (
    API_PORT,
    API_SERVICE_ADDRESS,
    API_URL,
    NODES,
    POD_RANGE,
    SERVICE_RANGE,
    SYSTEM,
)
from infra.local.waiting import wait_until

PKI = STATE / "pki"
KUBECONFIG = STATE / "kubeconfig"
"""For clients in the hub's network."""
KUBECONFIG_HOST = STATE / "kubeconfig-host"
"""For clients in the machine's network, through the forwarder."""

NETWORK_POLICIES_USER = "voicemesh:network-policies"

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

_ETCD_URL = "http://127.0.0.1:2379"
_ETCD_PORT = 2379
_ADMIN_GROUP = "system:masters"
_READY_SECONDS = 90.0


@dataclass(frozen=True)
class Credentials:
    """Files with which the parts of the cluster identify themselves.

    Attributes:
        cluster: authority of the cluster; the public gateway's certificate is signed by it too.
        front_proxy: authority of the certificate with which the API server calls aggregated APIs.
        service_accounts: the private and the public key of service account tokens.
    """

    cluster: Authority
    front_proxy: Authority
    service_accounts: tuple[Path, Path]

    def pair(
        self, name: str, common_name: str, organization: str = "", hosts: tuple[str, ...] = ()
    ) -> tuple[Path, Path]:
        """The certificate and key files of a member of the cluster."""
        return ensure_pair(
            self.cluster,
            PKI,
            name,
            common_name=common_name,
            organization=organization,
            hosts=hosts,
        )

    def kube_proxy(self) -> tuple[Path, Path]:
        """The certificate and key files of every node's kube-proxy."""
        return self.pair("kube-proxy", "system:kube-proxy")

    def network_policies(self) -> tuple[Path, Path]:
        """The certificate and key files of every node's enforcer of NetworkPolicies."""
        return self.pair("network-policies", NETWORK_POLICIES_USER)


def ensure_credentials() -> Credentials:
    """Makes what is missing of keys, certificates and kubeconfigs."""
    credentials = Credentials(
        cluster=ensure_authority(PKI, "authority"),
        front_proxy=ensure_authority(PKI, "front-proxy-authority"),
        service_accounts=ensure_service_account_keys(PKI),
    )
    admin = credentials.pair("admin", "voicemesh-admin", _ADMIN_GROUP)
    # All nodes share these, and are made at the same time.
    credentials.kube_proxy()
    credentials.network_policies()
    authority = credentials.cluster.certificate_path
    for path, server in (
        (KUBECONFIG, API_URL),
        (KUBECONFIG_HOST, f"https://127.0.0.1:{API_PORT}"),
    ):
        if not path.exists():
            write_kubeconfig(path, server, authority, *admin)
    return credentials


def ensure_api(credentials: Credentials) -> None:
    """Starts etcd and the API server where they do not run, and waits until it is ready.

    Raises:
        LocalEnvironmentError: one of them ended or was not ready in time; shows its log's end.
    """
    etcd = _etcd()
    processes.ensure_daemon(etcd)
    _wait_for_port(etcd, _ETCD_PORT)
    api_server = _api_server(credentials)
    processes.ensure_daemon(api_server)
    _wait_for_port(api_server, API_PORT)

    def unready() -> str | None:
        processes.still_running(api_server)
        return api.unready()

    with KubeApi(KUBECONFIG_HOST) as api:
        wait_until(unready, "the API server to be ready", _READY_SECONDS, api_server.log)


def ensure_controllers(credentials: Credentials) -> None:
    """Starts the controller-manager and the scheduler where they do not run."""
    processes.ensure_daemon(_controller_manager(credentials))
    processes.ensure_daemon(_scheduler(credentials))


def api_server_flags(credentials: Credentials, files: Mapping[str, tuple[Path, Path]]) -> list[str]:
    """The API server's command line.

    Args:
        credentials: the cluster's authorities and service account keys.
        files: certificate and key of `server`, `kubelet-client` and `front-proxy-client`.
    """
    private, public = credentials.service_accounts
    server, kubelet, proxy = (
        files[name] for name in ("server", "kubelet-client", "front-proxy-client")
    )
    return [
        f"--advertise-address={SYSTEM.address}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers={_ETCD_URL}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--anonymous-auth=false",
        "--allow-privileged=true",
        f"--client-ca-file={credentials.cluster.certificate_path}",
        f"--tls-cert-file={server[0]}",
        f"--tls-private-key-file={server[1]}",
        f"--kubelet-certificate-authority={credentials.cluster.certificate_path}",
        f"--kubelet-client-certificate={kubelet[0]}",
        f"--kubelet-client-key={kubelet[1]}",
        # Node names resolve nowhere.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        f"--requestheader-client-ca-file={credentials.front_proxy.certificate_path}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={proxy[0]}",
        f"--proxy-client-key-file={proxy[1]}",
        "--profiling=false",
    ]


def _etcd() -> Daemon:
    # A crash of the machine ends this life of the environment, so nothing need reach the disk.
    flags = [
        "--name=voicemesh",
        f"--data-dir={STATE / 'etcd'}",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--auto-compaction-retention=5m",
        "--logger=zap",
        "--log-level=warn",
    ]
    return _in_system(debian.binary("etcd"), flags)


def _api_server(credentials: Credentials) -> Daemon:
    hosts = (
        "127.0.0.1",
        "localhost",
        API_SERVICE_ADDRESS,
        *(node.address for node in NODES),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    proxy_pair = ensure_pair(
        credentials.front_proxy, PKI, "front-proxy-client", common_name="front-proxy-client"
    )
    files = {
        "server": credentials.pair("api-server", "kube-apiserver", hosts=hosts),
        "kubelet-client": credentials.pair("kubelet-client", "kubelet-client", _ADMIN_GROUP),
        "front-proxy-client": proxy_pair,
    }
    return _in_system(toolbox.binary("kube-apiserver"), api_server_flags(credentials, files))


def _controller_manager(credentials: Credentials) -> Daemon:
    user = "system:kube-controller-manager"
    config = _kubeconfig(credentials, "kube-controller-manager", user)
    authority = credentials.cluster
    flags = [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--cluster-cidr={POD_RANGE}",
        "--allocate-node-cidrs=false",
        f"--root-ca-file={authority.certificate_path}",
        f"--cluster-signing-cert-file={authority.certificate_path}",
        f"--cluster-signing-key-file={authority.key_path}",
        f"--service-account-private-key-file={credentials.service_accounts[0]}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]
    return _in_system(toolbox.binary("kube-controller-manager"), flags)


def _scheduler(credentials: Credentials) -> Daemon:
    config = _kubeconfig(credentials, "kube-scheduler", "system:kube-scheduler")
    flags = [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]
    return _in_system(toolbox.binary("kube-scheduler"), flags)


def _kubeconfig(credentials: Credentials, name: str, user: str) -> Path:
    path = PKI / f"{name}.kubeconfig"
    if not path.exists():
        pair = credentials.pair(name, user)
        write_kubeconfig(path, API_URL, credentials.cluster.certificate_path, *pair)
    return path


def _in_system(program: Path, flags: list[str]) -> Daemon:
    return Daemon(program.name, network.in_node_network(SYSTEM, [str(program), *flags]))


def _wait_for_port(daemon: Daemon, port: int) -> None:
    def unready() -> str | None:
        process = processes.still_running(daemon)
        listening = port in processes.listening_ports(process.pid)
        return None if listening else f"it does not listen on port {port}"

    wait_until(unready, f"{daemon.name} to listen", _READY_SECONDS, daemon.log)
