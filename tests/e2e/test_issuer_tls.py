"""Proxies fetch keys by TLS, from nobody but the issuer."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from infra.local import tokens
from infra.local.certificates import Authority
from infra.local.paths import CHECKOUT
from infra.local.up import GATEWAY_AUTHORITY
from tests.e2e.environment import eventually
from tests.e2e.lab import CLIENT_ADDRESS, GATEWAY_NAMESPACE, Lab
from tests.e2e.test_identity import GATEWAY_FILTER, mutated, providers, speaks
from voicemesh.identity import service_entry, tls_origination
from voicemesh.issuers import KeySource

HOST: Final = "login.voicemesh.example"
SOURCE: Final = KeySource(HOST, 8443, tls=True)
NAME: Final = "issuer-by-tls"
SECRET: Final = "issuer-authority"


@contextmanager
def issuer_by_tls(lab: Lab, folder: Path, name: str) -> Iterator[None]:
    """The gateway has keys from a server by TLS, whose certificate is for this name."""
    pair = Authority(GATEWAY_AUTHORITY, GATEWAY_AUTHORITY.with_suffix(".key")).issue(
        name, hosts=[name]
    )
    files = {"tls.crt": pair.certificate, "tls.key": pair.key}
    files["jwks.json"] = json.dumps(tokens.token_files().published).encode()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    entry: Any = {
        **service_entry(SOURCE),
        "resolution": "STATIC",
        "endpoints": [{"address": CLIENT_ADDRESS}],
    }

    def from_it(spec: dict[str, Any]) -> None:
        for provider in providers(spec):
            keys = provider["remote_jwks"]
            keys["http_uri"] |= {"uri": f"https://{HOST}:8443/", "cluster": SOURCE.cluster}
            keys["async_fetch"] = {"failed_refetch_duration": "1s"}

    argv = [sys.executable, "-m", "tests.e2e.https_server", CLIENT_ADDRESS, "8443"]
    argv += [str(folder / file) for file in files]
    with ExitStack() as changes:
        server = subprocess.Popen(
            ["nsenter", f"--net={lab.public().namespace}", "--", *argv],
            cwd=CHECKOUT,
            stderr=subprocess.DEVNULL,
        )
        changes.callback(server.wait)
        changes.callback(server.terminate)
        changes.enter_context(lab.object("ServiceEntry", GATEWAY_NAMESPACE, NAME, entry))
        changes.enter_context(
            lab.object("DestinationRule", GATEWAY_NAMESPACE, NAME, tls_origination(SOURCE))
        )
        changes.enter_context(mutated(lab, *GATEWAY_FILTER, from_it))
        (gateway,) = lab.gateways().values()
        eventually(lambda: f'"cluster": "{SOURCE.cluster}"' in gateway.config(), 30, "its keys")
        yield
    eventually(lambda: speaks(lab) == 200, 60, "the keys of before")


@contextmanager
def trusted_authority(lab: Lab) -> Iterator[None]:
    """The gateway trusts the authority of that server, too."""
    authority = base64.b64encode(GATEWAY_AUTHORITY.read_bytes()).decode()
    secret = {"metadata": {"name": SECRET}, "data": {"ca.crt": authority}}
    lab.core.create_namespaced_secret(GATEWAY_NAMESPACE, secret)
    rule: Any = tls_origination(SOURCE)
    (port,) = rule["trafficPolicy"]["portLevelSettings"]
    trusting = {**port, "tls": {**port["tls"], "credentialName": SECRET}}
    del trusting["tls"]["caCertificates"]
    policy = {"trafficPolicy": {"portLevelSettings": [trusting]}}
    try:
        with lab.patched("DestinationRule", GATEWAY_NAMESPACE, NAME, policy):
            yield
    finally:
        lab.core.delete_namespaced_secret(SECRET, GATEWAY_NAMESPACE)


def test_keys_come_by_tls_from_the_issuer_itself(lab: Lab, tmp_path: Path) -> None:
    with issuer_by_tls(lab, tmp_path, HOST):
        eventually(lambda: speaks(lab) == 503, 30, "no keys from whose authority is unknown")
        with trusted_authority(lab):
            eventually(lambda: speaks(lab) == 200, 30, "keys from the issuer")


def test_no_keys_come_from_a_server_with_another_name(lab: Lab, tmp_path: Path) -> None:
    with issuer_by_tls(lab, tmp_path, "evil.voicemesh.example"), trusted_authority(lab):
        (gateway,) = lab.gateways().values()
        failed = f"cluster.{SOURCE.cluster};.ssl.fail_verify_san"
        eventually(lambda: gateway.stats("fail_verify_san").get(failed, 0) > 0, 30, "its name")
        assert speaks(lab) == 503
