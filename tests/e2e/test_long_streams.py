"""Streams outlast whatever changes around them: certificates, weights, policies, the gateway."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest
from cryptography.x509 import load_pem_x509_certificate

from tests.e2e.environment import eventually
from tests.e2e.figures import note
from tests.e2e.lab import GATEWAY, GATEWAY_NAMESPACE, Caller, Lab, Proxy, Running, is_up
from tests.e2e.load import Answer, Target
from tests.e2e.metered import GATEWAY as OTHER_GATEWAY
from tests.e2e.metered import NAMESPACE as OTHER_GATEWAY_NAMESPACE
from tests.e2e.metered import VOICE as OTHER_VOICE
from tests.e2e.proxies import cluster_of
from tests.e2e.scripted_upstream.server import VARIANT_HEADER, Script, body_bytes
from voicemesh.contract import APP_LABEL, HTTP_PORT

VOICE: Final = "lasting"
"""A voice whose sidecars get new certificates twice a minute."""

STREAMS: Final = 40
LEAST_SECONDS: Final = 90
STREAM: Final = Script(chunks=100, size=64, pause_ms=1000)

FEW: Final = 8
SHORT_STREAM: Final = Script(chunks=25, size=64, pause_ms=1000)

CLOSED_HEADER: Final = "x-closed"
PROXY_CONFIG: Final = "proxy.istio.io/config"
RESTARTED: Final = "voicemesh.io/restarted"
SHORT_LIVED: Final = json.dumps({"proxyMetadata": {"SECRET_TTL": "60s"}})
NO_DRAIN: Final = json.dumps(
    {
        "terminationDrainDuration": "1s",
        "proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "false"},
    }
)


def check_streams_survive(answers: Sequence[Answer], script: Script, count: int) -> None:
    """All are whole, to the byte."""
    ends = Counter((answer.status, answer.outcome) for answer in answers)
    assert ends == {(200, "complete"): count}, f"streams ended as {dict(ends)}"
    whole = hashlib.sha256(body_bytes(script)).hexdigest()
    assert {answer.sha256 for answer in answers} == {whole}


@pytest.fixture(scope="session")
def streams(lab: Lab) -> Iterator[Running]:
    """Streams that have begun, through a gateway whose certificate is about to be replaced."""
    roll_out(lab, GATEWAY_NAMESPACE, GATEWAY, {PROXY_CONFIG: SHORT_LIVED})
    eventually(lambda: statuses(lab) == {200}, 30, "the new gateway answers")
    running = lab.start(
        lab.asking(STREAM, count=STREAMS), voice=VOICE, concurrency=STREAMS, timeout_seconds=300
    )
    with ExitStack() as stack:
        plain = {PROXY_CONFIG: None, RESTARTED: None}
        stack.callback(lambda: is_up() and roll_out(lab, GATEWAY_NAMESPACE, GATEWAY, plain))
        stack.callback(running.kill)
        eventually(lambda: open_streams(lab) == STREAMS, 30, "all streams have begun")
        yield running


def open_streams(lab: Lab) -> int:
    return sum(server.counts()["open"] for server in lab.upstreams(VOICE).values())


def roll_out(
    lab: Lab, namespace: str, name: str, annotations: Mapping[str, str | None]
) -> list[str]:
    """Replaces a gateway's pods by some with these annotations; the names of the new ones."""
    before = {pod.metadata.name for pod in lab.ready_pods(namespace, app=name)}
    metadata = {"annotations": {RESTARTED: uuid.uuid4().hex, **annotations}}
    lab.environment.apps.patch_namespaced_deployment(
        name, namespace, {"spec": {"template": {"metadata": metadata}}}
    )

    def replaced() -> list[str]:
        now = {pod.metadata.name for pod in lab.ready_pods(namespace, app=name)}
        return sorted(now) if now and not now & before else []

    return eventually(replaced, 90, f"{name} has new pods")


def test_a_change_of_weights_ends_no_stream(lab: Lab, streams: Running) -> None:
    with weights(lab, {"stable": 0, "canary": 100}):
        eventually(lambda: answering(lab) == {"canary"}, 20, "the weights hold")
        assert open_streams(lab) == STREAMS
    eventually(lambda: "stable" in answering(lab), 20, "the weights are what they were")
    assert open_streams(lab) == STREAMS


@contextmanager
def weights(lab: Lab, shares: Mapping[str, int]) -> Iterator[None]:
    """For a while, the voice's public routes share requests so."""
    name = f"{VOICE}-public"
    routes = lab.read("VirtualService", lab.voices[VOICE], name)["spec"]["http"]
    shared = [
        {
            **route,
            "route": [
                {**part, "weight": shares[part["destination"]["subset"]]}
                for part in route["route"]
                if shares[part["destination"]["subset"]]
            ],
        }
        for route in routes
    ]
    with lab.patched("VirtualService", lab.voices[VOICE], name, {"http": shared}):
        yield


def answering(lab: Lab) -> set[str]:
    """Which variants answer forty requests."""
    answers = lab.load(lab.asking(count=40), voice=VOICE, concurrency=4)
    return {answer.headers[VARIANT_HEADER] for answer in answers if answer.is_good}


def test_a_change_of_policies_ends_no_stream(lab: Lab, streams: Running) -> None:
    closed = {"when": [{"key": f"request.headers[{CLOSED_HEADER}]", "values": ["1"]}]}
    for namespace, app in ((lab.voices[VOICE], VOICE), (GATEWAY_NAMESPACE, GATEWAY)):
        policy = {
            "selector": {"matchLabels": {APP_LABEL: app}},
            "action": "DENY",
            "rules": [closed],
        }
        with lab.object("AuthorizationPolicy", namespace, f"{app}-closed", policy):
            eventually(lambda: statuses(lab) == {403}, 20, f"the policy of {app} holds")
            assert open_streams(lab) == STREAMS
        eventually(lambda: statuses(lab) == {200}, 20, f"the policy of {app} is gone")
    assert open_streams(lab) == STREAMS


def statuses(lab: Lab) -> set[int | None]:
    """What requests get that the policy closes out."""
    asked = lab.asking(headers={CLOSED_HEADER: "1"}, count=8)
    return {answer.status for answer in lab.load(asked, voice=VOICE, keep_alive=False)}


def test_a_change_of_limits_ends_no_stream(lab: Lab, streams: Running) -> None:
    pool = {"trafficPolicy": {"connectionPool": {"http": {"http2MaxRequests": 77}}}}

    def limit() -> int:
        (gateway,) = lab.gateways().values()
        (thresholds,) = cluster_of(gateway, VOICE, "stable")["circuit_breakers"]["thresholds"]
        return thresholds["max_requests"]

    with lab.patched("DestinationRule", lab.voices[VOICE], VOICE, pool):
        eventually(lambda: limit() == 77, 20, "the limit holds")
        assert open_streams(lab) == STREAMS
    eventually(lambda: limit() != 77, 20, "the limit is what it was")
    assert open_streams(lab) == STREAMS


def test_new_certificates_end_no_stream(lab: Lab, streams: Running) -> None:
    proxies = {**lab.gateways(), **lab.sidecars(VOICE)}
    before = {name: serial_number(proxy) for name, proxy in proxies.items()}

    def all_have_new_ones() -> bool:
        return all(serial_number(proxy) != before[name] for name, proxy in proxies.items())

    eventually(all_have_new_ones, 60, "all proxies have new certificates")
    for pod in lab.pods(VOICE):
        sidecar = proxies[pod.metadata.name]
        shown = shown_serial_number(beside_the_gateway(lab), pod.status.pod_ip)
        assert shown == serial_number(sidecar) != before[pod.metadata.name]
    assert open_streams(lab) == STREAMS


def serial_number(proxy: Proxy) -> int:
    """Of the certificate that a proxy shows to others in the mesh."""
    for each in json.loads(proxy.ask_admin("/certs"))["certificates"]:
        for certificate in each["cert_chain"]:
            if any("spiffe://" in name.get("uri", "") for name in certificate["subject_alt_names"]):
                return int(certificate["serial_number"], 16)
    raise AssertionError("a proxy without a certificate of the mesh")


SHOW_CERTIFICATE: Final = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["istio"])
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    print(ssl.DER_cert_to_PEM_cert(context.wrap_socket(connection).getpeercert(True)))
"""


def beside_the_gateway(lab: Lab, address: str = "") -> Caller:
    """Somebody who may connect to pods, as the gateway may, but has no proxy."""
    (gateway,) = lab.gateways().values()
    return Caller(gateway.network, Target(address, HTTP_PORT, VOICE))


def shown_serial_number(client: Caller, address: str) -> int:
    """Of the certificate that whoever connects to a pod is shown."""
    shown = subprocess.run(
        [
            *("nsenter", f"--net={client.namespace}", "--"),
            *(sys.executable, "-c", SHOW_CERTIFICATE, address, str(HTTP_PORT)),
        ],
        capture_output=True,
        check=True,
        timeout=20,
    )
    return load_pem_x509_certificate(shown.stdout).serial_number


def test_a_rollout_of_the_gateway_ends_no_stream(lab: Lab, streams: Running) -> None:
    roll_out(lab, GATEWAY_NAMESPACE, GATEWAY, {})
    eventually(lambda: statuses(lab) == {200}, 30, "the new gateway answers")
    assert open_streams(lab) == STREAMS


def timers(config: Any, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """All fields of these names in a proxy's configuration."""
    if isinstance(config, dict):
        yield from ((name, config[name]) for name in names if name in config)
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from timers(value, names)


def check_no_timer_ends_a_stream(proxy: Proxy) -> None:
    """None of the timers that run while a stream does is set."""
    config = json.loads(proxy.config())
    plain = {"stream_idle_timeout", "max_connection_duration", "stream_flush_timeout"}
    found = list(timers(config, {*plain, "max_stream_duration"}))
    running = [(name, value) for name, value in found if any_time(value)]
    assert not running, f"timers that end streams: {running}"
    assert ("stream_idle_timeout", "0s") in found, "Envoy's own five minutes hold"
    routes = [route for _, route in timers(config, {"route"}) if "bound|" in json.dumps(route)]
    assert routes, "no routes to voices"
    impatient = [route for route in routes if route.get("timeout") != "0s"]
    assert not impatient, f"routes with a time-out: {impatient}"


def any_time(value: Any) -> bool:
    """Whether a duration, or any part of an object of durations, is longer than none."""
    values = value.values() if isinstance(value, dict) else [value]
    return any(each != "0s" for each in values)


def test_no_timer_of_gateway_or_sidecar_ends_a_stream(lab: Lab) -> None:
    for proxy in (*lab.gateways().values(), *lab.sidecars(VOICE).values()):
        check_no_timer_ends_a_stream(proxy)


def test_a_timer_that_ends_streams_would_be_noticed(lab: Lab) -> None:
    name, namespace = f"{VOICE}-public", lab.voices[VOICE]
    (gateway,) = lab.gateways().values()
    routes = lab.read("VirtualService", namespace, name)["spec"]["http"]
    hurried = [{**route, "timeout": "90s"} for route in routes]
    with lab.patched("VirtualService", namespace, name, {"http": hurried}):
        eventually(lambda: '"90s"' in gateway.config(), 20, "the gateway has the time-out")
        with pytest.raises(AssertionError, match="routes with a time-out"):
            check_no_timer_ends_a_stream(gateway)
    eventually(lambda: '"90s"' not in gateway.config(), 20, "the time-out is gone")


def check_plaintext_is_refused(lab: Lab) -> None:
    (pod, *_) = lab.pods(VOICE)
    answer = beside_the_gateway(lab, pod.status.pod_ip).request(lab.asking())
    assert (answer.outcome, answer.status) == ("closed", None), "plaintext was answered"


def test_plaintext_is_refused(lab: Lab) -> None:
    check_plaintext_is_refused(lab)


def test_plaintext_that_is_not_refused_would_be_noticed(lab: Lab) -> None:
    def refused() -> bool:
        try:
            check_plaintext_is_refused(lab)
        except AssertionError:
            return False
        return True

    permissive = {"selector": {"matchLabels": {APP_LABEL: VOICE}}, "mtls": {"mode": "PERMISSIVE"}}
    with lab.object("PeerAuthentication", lab.voices[VOICE], f"{VOICE}-open", permissive):
        eventually(lambda: not refused(), 20, "plaintext is answered")
        with pytest.raises(AssertionError, match="plaintext was answered"):
            check_plaintext_is_refused(lab)
    eventually(refused, 20, "plaintext is refused again")


def test_who_is_no_caller_of_a_voice_is_refused(lab: Lab) -> None:
    asked = lab.asking(token=None)
    assert lab.inside(VOICE, account="caller").request(asked).status == 200
    assert lab.inside(VOICE, account="stranger").request(asked).status == 403


@pytest.mark.late
def test_forty_streams_of_ninety_seconds_are_whole_after_all_of_it(streams: Running) -> None:
    answers = streams.finish()
    check_streams_survive(answers, STREAM, STREAMS)
    shortest = min(answer.ended - answer.started for answer in answers)
    assert shortest >= LEAST_SECONDS
    note("streams", f"shortest of {STREAMS} that outlasted every change", shortest, "s")


@pytest.mark.late
@pytest.mark.timeout(240)
def test_a_gateway_that_does_not_wait_for_its_streams_would_be_noticed(lab: Lab) -> None:
    def roll_out_other(annotations: Mapping[str, str | None]) -> None:
        roll_out(lab, OTHER_GATEWAY_NAMESPACE, OTHER_GATEWAY, annotations)

    with ExitStack() as stack:
        stack.callback(roll_out_other, {PROXY_CONFIG: None, RESTARTED: None})
        roll_out_other({PROXY_CONFIG: NO_DRAIN})
        other = lab.public(OTHER_VOICE)
        eventually(lambda: other.request(lab.asking()).is_good, 30, "the new gateway answers")
        running = other.start(lab.asking(SHORT_STREAM, count=FEW), concurrency=FEW)
        (server,) = lab.upstreams(OTHER_VOICE).values()
        eventually(lambda: server.counts()["open"] == FEW, 20, "all streams have begun")
        roll_out_other({})
        with pytest.raises(AssertionError, match="streams ended as"):
            check_streams_survive(running.finish(), SHORT_STREAM, FEW)
