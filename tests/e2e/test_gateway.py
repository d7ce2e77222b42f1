"""The way in: TLS at the gateway, mTLS behind it, nothing else."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest

from infra.local import network
from infra.local.topology import NODES
from tests.e2e.environment import NAMESPACE, Environment, eventually
from voicemesh.contract import HEALTH_PATH, HTTP_PORT, METRICS_PATH

_CLOSED = {"ReadError", "RemoteProtocolError"}
"""How a sidecar that wants mTLS ends a connection without it: after accepting, without a word."""


def test_https_works_with_the_environments_authority(environment: Environment) -> None:
    with environment.door.client() as client:
        assert client.get(HEALTH_PATH).status_code == 200


def test_https_fails_without_the_environments_authority(environment: Environment) -> None:
    trusted_by_nobody = replace(environment.door, authority=_public_authorities())
    with trusted_by_nobody.client() as client, pytest.raises(httpx.ConnectError, match="CERT"):
        client.get(HEALTH_PATH)


def _public_authorities() -> Path:
    return Path(certifi.where())


def test_a_known_server_name_with_an_unknown_host_gets_404(environment: Environment) -> None:
    with environment.door.client() as client:
        known = client.get(HEALTH_PATH)
        unknown = client.get(HEALTH_PATH, headers={"Host": "elsewhere.voicemesh.localhost"})
    assert (known.status_code, unknown.status_code) == (200, 404)


@pytest.mark.parametrize(("known", "accepted"), [(True, True), (False, False)])
def test_an_unknown_server_name_is_refused(
    environment: Environment, known: bool, accepted: bool
) -> None:
    door = environment.door
    context = ssl.create_default_context(cafile=str(door.authority))
    context.check_hostname = False
    host, _, port = door.address.partition(":")
    name = door.host if known else "elsewhere.voicemesh.localhost"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        if accepted:
            context.wrap_socket(connection, server_hostname=name).close()
            return
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(connection, server_hostname=name)


def test_plain_http_is_redirected_to_https(environment: Environment) -> None:
    answer = httpx.get(
        f"http://127.0.0.1:8080{HEALTH_PATH}",
        headers={"Host": environment.door.host},
        trust_env=False,
    )
    assert answer.status_code == 301
    assert answer.headers["location"].startswith(f"https://{environment.door.host}")


def test_metrics_are_not_served_to_the_public(environment: Environment) -> None:
    with environment.door.client() as client:
        assert client.get(METRICS_PATH).status_code == 404


def test_plain_http_to_a_speech_pod_is_refused(environment: Environment) -> None:
    assert _plain_request(environment.speech_pods()[0]) in _CLOSED


def test_plain_http_to_a_speech_pod_gets_as_far_as_its_policy_where_mtls_is_permissive(
    environment: Environment,
) -> None:
    pod = environment.speech_pods()[0]
    with _permissive(environment):
        eventually(lambda: _plain_request(pod) == "403", what="plain HTTP is let in")
    eventually(lambda: _plain_request(pod) in _CLOSED, what="plain HTTP is refused again")


def _plain_request(pod: Any) -> str:
    """Asks a pod's health from outside the mesh: its status, or the error's name.

    It comes from the pod's own node, which no NetworkPolicy keeps away.
    """
    program = (
        "import sys, httpx\n"
        "try: print(httpx.get(sys.argv[1], timeout=5, trust_env=False).status_code)\n"
        "except httpx.HTTPError as error: print(type(error).__name__)\n"
    )
    url = f"http://{pod.status.pod_ip}:{HTTP_PORT}{HEALTH_PATH}"
    node = next(node for node in NODES if node.name == pod.spec.node_name)
    argv = network.in_node_network(node, [sys.executable, "-c", program, url])
    return subprocess.run(argv, text=True, capture_output=True, check=True).stdout.strip()


@contextmanager
def _permissive(environment: Environment) -> Iterator[None]:
    kind = ("security.istio.io", "v1", NAMESPACE, "peerauthentications")
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "negative-control"},
        "spec": {"mtls": {"mode": "PERMISSIVE"}},
    }
    environment.custom.create_namespaced_custom_object(*kind, policy)
    try:
        yield
    finally:
        environment.custom.delete_namespaced_custom_object(*kind, "negative-control")
