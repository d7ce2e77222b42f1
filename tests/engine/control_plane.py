"""A control plane on loopback for these tests: etcd, API server, controller-manager; no nodes."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from infra.local import debian, toolbox
from infra.local.adapters.kubernetes_provider.api import Api
from infra.local.adapters.kubernetes_provider.kubeconfig import parse
from infra.local.adapters.provider_base import ProviderError
from infra.local.certificates import (
    ensure_authority,
    ensure_pair,
    ensure_service_account_keys,
)
from infra.local.kubeconfig import write_kubeconfig
from infra.local.waiting import wait_until

_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0


@contextmanager
def control_plane(folder: Path) -> Iterator[Path]:
    """Runs a control plane whose files are in the folder; yields its administrator's kubeconfig."""
    authority = ensure_authority(folder, "authority")
    serving = ensure_pair(
        authority, folder, "apiserver", common_name="apiserver", hosts=["127.0.0.1", "10.96.0.1"]
    )
    admin = ensure_pair(
        authority, folder, "admin", common_name="admin", organization="system:masters"
    )
    private, public = ensure_service_account_keys(folder)
    client_port, peer_port, api_port, manager_port = free_ports(4)
    etcd, server = f"http://127.0.0.1:{client_port}", f"https://127.0.0.1:{api_port}"
    kubeconfig = folder / "kubeconfig"
    write_kubeconfig(kubeconfig, server, authority.certificate_path, *admin)
    with ExitStack() as stack:
        stack.enter_context(
            _process(
                folder,
                debian.binary("etcd"),
                f"--data-dir={folder / 'etcd-data'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                "--unsafe-no-fsync",
            )
        )
        stack.enter_context(
            _process(
                folder,
                toolbox.binary("kube-apiserver"),
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={api_port}",
                # Of the documentation range: nothing connects to it.
                "--advertise-address=192.0.2.1",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                f"--client-ca-file={authority.certificate_path}",
                f"--tls-cert-file={serving[0]}",
                f"--tls-private-key-file={serving[1]}",
                f"--service-account-key-file={public}",
                f"--service-account-signing-key-file={private}",
                "--service-account-issuer=https://kubernetes.default.svc",
            )
        )
        wait_until(lambda: _unready(kubeconfig), "the API server to be ready", _READY_SECONDS)
        stack.enter_context(
            _process(
                folder,
                toolbox.binary("kube-controller-manager"),
                f"--kubeconfig={kubeconfig}",
                f"--root-ca-file={authority.certificate_path}",
                f"--service-account-private-key-file={private}",
                f"--secure-port={manager_port}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder / 'manager'}",
                "--leader-elect=false",
                "--namespace-sync-period=1s",
            )
        )
        wait_until(lambda: _without_default_account(kubeconfig), "the controllers", _READY_SECONDS)
        yield kubeconfig


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


@contextmanager
def _process(folder: Path, program: Path, *arguments: str) -> Iterator[None]:
    command: Sequence[str] = [str(program), *arguments]
    with (folder / f"{program.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def connected(kubeconfig: Path) -> Iterator[Api]:
    """A client for the control plane."""
    with closing(Api(parse(kubeconfig.read_text()))) as api:
        yield api


def _unready(kubeconfig: Path) -> str | None:
    with connected(kubeconfig) as api:
        try:
            api.get(api.kind("v1", "Namespace"), "", "default")
        except ProviderError as error:
            return str(error)
    return None


def _without_default_account(kubeconfig: Path) -> str | None:
    with connected(kubeconfig) as api:
        found = api.get(api.kind("v1", "ServiceAccount"), "default", "default")
    return None if found else "there is no default service account yet"
