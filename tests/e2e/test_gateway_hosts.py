"""Hosts of one gateway: TLS of each, redirects, and paths as everything behind it sees them."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from typing import Any, Final

import pytest

from infra.local.topology import SYSTEM
from infra.local.up import GATEWAY_AUTHORITY
from tests.e2e.environment import eventually
from tests.e2e.lab import (
    DOMAIN,
    GATEWAY,
    GATEWAY_NAMESPACE,
    HTTP_NODE_PORT,
    HTTPS_NODE_PORT,
    Lab,
)
from tests.e2e.load import Request
from voicemesh.contract import HEALTH_PATH, METRICS_PATH, SPEECH_PATH

OLD_CIPHERS: Final = [
    *("ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-SHA"),
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
]
"""TLS 1.1 has no others; Istio leaves them out."""

_HANDSHAKE: Final = """
import socket, ssl, sys
address, port, name, authority, version = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
try:
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        print(context.wrap_socket(connection, server_hostname=name).version())
except (ssl.SSLError, ConnectionResetError) as error:
    print(getattr(error, "reason", "reset"))
"""


def test_tls_begins_with_1_2(lab: Lab) -> None:
    check_tls(lab)


def test_tls_that_begins_earlier_is_noticed(lab: Lab) -> None:
    servers = lab.read("Gateway", GATEWAY_NAMESPACE, GATEWAY)["spec"]["servers"]
    for server in servers:
        if server["port"]["protocol"] == "HTTPS":
            server["tls"] |= {"minProtocolVersion": "TLSV1_1", "cipherSuites": OLD_CIPHERS}
    with lab.patched("Gateway", GATEWAY_NAMESPACE, GATEWAY, {"servers": servers}):
        eventually(lambda: handshake(lab, "TLSv1_1") == "TLSv1.1", 30, "TLS 1.1 is taken")
        with pytest.raises(AssertionError, match=r"TLSv1\.1"):
            check_tls(lab)
    eventually(lambda: check_tls(lab) is None, 30, "TLS 1.1 is refused again")


def check_tls(lab: Lab) -> None:
    taken = [handshake(lab, version) for version in ("TLSv1_1", "TLSv1_2", "TLSv1_3")]
    assert taken == ["TLSV1_ALERT_PROTOCOL_VERSION", "TLSv1.2", "TLSv1.3"]


def handshake(lab: Lab, version: str) -> str:
    """The version agreed on by a client that knows this one alone, or why there is none."""
    target = [SYSTEM.address, str(HTTPS_NODE_PORT), f"plain.{DOMAIN}", str(GATEWAY_AUTHORITY)]
    python = [sys.executable, "-W", "ignore", "-c", _HANDSHAKE]
    enter = ["nsenter", f"--net={lab.public().namespace}", "--"]
    done = subprocess.run(
        [*enter, *python, *target, version], text=True, capture_output=True, check=True
    )
    return done.stdout.strip()


def test_plain_http_is_redirected_for_every_host(lab: Lab) -> None:
    check_redirect(lab)


def test_plain_http_that_is_served_is_noticed(lab: Lab) -> None:
    servers = copy.deepcopy(lab.read("Gateway", GATEWAY_NAMESPACE, GATEWAY)["spec"]["servers"])
    for server in servers:
        if server["port"]["protocol"] == "HTTP":
            server["tls"] = {"httpsRedirect": False}
    with lab.patched("Gateway", GATEWAY_NAMESPACE, GATEWAY, {"servers": servers}):
        eventually(lambda: _plain(lab, "plain").status == 200, 30, "plain HTTP is served")
        with pytest.raises(AssertionError, match="200"):
            check_redirect(lab)
    eventually(lambda: check_redirect(lab) is None, 30, "plain HTTP is redirected again")


def check_redirect(lab: Lab) -> None:
    for voice in ("plain", "neighbour"):
        answer = _plain(lab, voice)
        found = answer.status, answer.headers.get("location")
        assert found == (301, f"https://{voice}.{DOMAIN}{HEALTH_PATH}")


def _plain(lab: Lab, voice: str) -> Any:
    caller = lab.outside(SYSTEM.address, HTTP_NODE_PORT, f"{voice}.{DOMAIN}")
    return caller.request(Request(HEALTH_PATH, method="GET"))


def test_each_host_leads_to_its_own_service_and_to_no_other(lab: Lab) -> None:
    check_hosts(lab)


def test_a_host_that_another_one_serves_is_noticed(lab: Lab) -> None:
    servers = copy.deepcopy(lab.read("Gateway", GATEWAY_NAMESPACE, GATEWAY)["spec"]["servers"])
    (plain,) = [
        server
        for server in servers
        if server["port"]["protocol"] == "HTTPS" and f"/plain.{DOMAIN}" in server["hosts"][0]
    ]
    servers = [
        server
        for server in servers
        if server is plain or f"/neighbour.{DOMAIN}" not in str(server["hosts"])
    ]
    plain["hosts"].append(f"*/neighbour.{DOMAIN}")
    with lab.patched("Gateway", GATEWAY_NAMESPACE, GATEWAY, {"servers": servers}):
        eventually(lambda: _crossed(lab) != 404, 30, "one host answers for the other")
        with pytest.raises(AssertionError, match="neighbour by the certificate of plain"):
            check_hosts(lab)
    eventually(lambda: check_hosts(lab) is None, 30, "each host has its own service again")


def check_hosts(lab: Lab) -> None:
    for voice in ("plain", "neighbour"):
        answer = lab.request(lab.asking({}), voice)
        assert (answer.status, answer.headers["x-pod"].split("-")[0]) == (200, voice)
    assert _crossed(lab) == 404, "neighbour by the certificate of plain"


def _crossed(lab: Lab) -> int | None:
    """The status for a host on a connection that was made for another."""
    asked = lab.asking({}, headers={"host": f"neighbour.{DOMAIN}"})
    return lab.public("plain").request(asked).status


def test_paths_mean_the_same_to_everybody(lab: Lab) -> None:
    check_paths(lab)


def test_paths_that_are_left_as_they_come_are_noticed(lab: Lab) -> None:
    manager = "envoy.filters.network.http_connection_manager"
    value = {
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network"
            ".http_connection_manager.v3.HttpConnectionManager",
            "normalize_path": False,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        }
    }
    listener = {"filterChain": {"filter": {"name": manager}}}
    patch = {
        "applyTo": "NETWORK_FILTER",
        "match": {"context": "GATEWAY", "listener": listener},
        "patch": {"operation": "MERGE", "value": value},
    }
    with lab.object("EnvoyFilter", GATEWAY_NAMESPACE, "paths", {"configPatches": [patch]}):
        eventually(lambda: _status(lab, "/v1%2Faudio%2Fspeech") != 200, 30, "paths are left")
        with pytest.raises(AssertionError, match="%2F"):
            check_paths(lab)
    eventually(lambda: check_paths(lab) is None, 30, "paths are normalized again")


def check_paths(lab: Lab) -> None:
    for path in (
        *("/v1/audio//speech", "//v1/audio/speech", "/v1%2Faudio%2Fspeech", "/v1/%61udio/speech"),
        *("/v1/audio/voices/../speech", "/v1/./audio/speech", "/v1/audio%5Cspeech"),
    ):
        answer = lab.request(lab.asking({}, path=path))
        assert answer.status == 200, f"{path} was answered {answer.status}"
        assert json.loads(answer.text)["path"] == SPEECH_PATH, path
    for path in ("//metrics", "/%6Detrics", "/v1%2F..%2Fmetrics", f"{METRICS_PATH}/"):
        assert _status(lab, path) == 404, path


def _status(lab: Lab, path: str) -> int | None:
    return lab.request(dataclasses.replace(lab.asking({}), path=path)).status
