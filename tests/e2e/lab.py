"""The lab: a gateway, tenants and voices of the tests' own, and a network from which load starts.

What it is made of is in `programs/lab.py`; its voices are scripted servers (`scripted_upstream/`).
The fixture `lab` brings it up once a session. While one writes tests,

    python -m tests.e2e.lab up | down

brings it up, or up to date, and takes it away, and `pytest --running` uses it as it is.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pytest

from infra.local import images, network, tokens
from infra.local.certificates import Authority
from infra.local.commands import run_command
from infra.local.paths import CHECKOUT, STATE
from infra.local.topology import HUB, HUB_BRIDGE, NODES, SYSTEM
from infra.local.up import CHARTS, GATEWAY_AUTHORITY
from tests.e2e.environment import Environment, eventually, is_ready
from tests.e2e.load import Answer, Request, Spec, Target
from tests.e2e.scripted_upstream.server import (
    ADMIN_PORT,
    PROBE_HEADER,
    SCRIPT_HEADER,
    Script,
)
from tests.e2e.small_stack import PROGRAMS, SmallStack
from voicemesh.contract import APP_LABEL, HTTP_PORT, SPEECH_PATH, VARIANT_LABEL

GATEWAY_NAMESPACE: Final = "lab-ingress"
GATEWAY: Final = "lab-gateway"
DOMAIN: Final = "lab.voicemesh.localhost"
TENANT: Final = "lab-a"
OTHER_TENANT: Final = "lab-b"
HTTPS_NODE_PORT: Final = 30044
HTTP_NODE_PORT: Final = 30081
OTHER_GATEWAYS: Final[Mapping[str, int]] = {"metered": 30046, "walled": 30045}
"""Ports of the gateways that some voices have to themselves, by the name of the voice."""
CLIENT_ADDRESS: Final = "10.245.0.200"

_CLIENT_NAMESPACE: Final = f"{HUB}-client"
_CLIENT_LINK: Final = "vm-client"
_FOLDER: Final = STATE / "lab"
_PROGRAM: Final = "lab.py"
_ENVOY_ADMIN_PORT: Final = 15000
_CLONE_NEWNET: Final = 0x40000000

KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "AuthorizationPolicy": ("security.istio.io", "v1", "authorizationpolicies"),
    "DestinationRule": ("networking.istio.io", "v1", "destinationrules"),
    "EnvoyFilter": ("networking.istio.io", "v1alpha3", "envoyfilters"),
    "Gateway": ("networking.istio.io", "v1", "gateways"),
    "PeerAuthentication": ("security.istio.io", "v1", "peerauthentications"),
    "RequestAuthentication": ("security.istio.io", "v1", "requestauthentications"),
    "ServiceEntry": ("networking.istio.io", "v1", "serviceentries"),
    "Telemetry": ("telemetry.istio.io", "v1", "telemetries"),
    "VirtualService": ("networking.istio.io", "v1", "virtualservices"),
}
"""Group, version and plural of what controls mutate."""


def asking(
    script: Script | Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
    probe: str = "",
    path: str = SPEECH_PATH,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Request:
    """A request for what a script says, or for the server's report of it.

    Args:
        script: a `Script`, or the fields of one.
        token: bearer token; None for none. `Lab.asking` adds one.
        probe: by which the servers count it.
        path: path and query.
        headers: further ones.
        fields: further fields of `Request`.
    """
    if isinstance(script, Script):
        usual = Script()
        script = {
            name: value
            for name, value in dataclasses.asdict(script).items()
            if value != getattr(usual, name)
        }
    given = {
        SCRIPT_HEADER: json.dumps(script) if script is not None else None,
        PROBE_HEADER: probe or None,
        "authorization": f"Bearer {token}" if token else None,
    }
    said = {name: value for name, value in given.items() if value is not None}
    return Request(path=path, headers={**said, **(headers or {})}, **fields)


def new_probe(name: str) -> str:
    """A probe that no request had before."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class Running:
    """Requests that are being sent."""

    def __init__(self, namespace: Path, spec: Spec) -> None:
        self._process = subprocess.Popen(
            [
                # So that what it tells is when something arrived, not when it had a turn.
                *("nice", "-n", "-15", "nsenter", f"--net={namespace}", "--"),
                *(sys.executable, "-m", "tests.e2e.load"),
            ],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(spec)))
        self._process.stdin.close()
        self._process.stdin = None

    def stop(self) -> list[Answer]:
        """Begins no further request; the answers of all that were begun."""
        self._process.terminate()
        return self.finish()

    def finish(self) -> list[Answer]:
        """Awaits the end; all answers, in the order in which they ended."""
        told, _ = self._process.communicate()
        assert self._process.returncode == 0, f"load exited with {self._process.returncode}"
        return [Answer(**each) for each in json.loads(told)]

    def kill(self) -> None:
        """Ends it at once, as a client's machine that fails."""
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._process.communicate()


@dataclass(frozen=True)
class Caller:
    """A place from which requests start: the client's network, or that of a pod with a sidecar."""

    namespace: Path
    target: Target

    def start(self, *requests: Request, **how: Any) -> Running:
        """Begins to send; `how` are further fields of `Spec`."""
        return Running(self.namespace, Spec(self.target, requests, **how))

    def load(self, *requests: Request, **how: Any) -> list[Answer]:
        """Sends all and awaits their answers; `how` are further fields of `Spec`."""
        return self.start(*requests, **how).finish()

    def request(self, request: Request, **how: Any) -> Answer:
        """Sends one request."""
        (answer,) = self.load(request, **how)
        return answer


class Process:
    """A process of a pod, as the machine sees it."""

    def __init__(self, pod: str, command: str) -> None:
        found = eventually(lambda: _pid(pod, command), 30, f"{command} of {pod} runs")
        assert found is not None
        self.pid = found

    @property
    def network(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    @property
    def open_files(self) -> int:
        """File descriptors, sockets included."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def sockets(self) -> Counter[str]:
        """How many file descriptors each of its sockets has."""
        folder = Path(f"/proc/{self.pid}/fd")
        sockets = Counter[str]()
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):  # closed in the meantime
                target = os.readlink(folder / name)
                sockets[target] += target.startswith("socket:")
        return sockets

    @property
    def memory_mib(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found, f"process {self.pid} is gone"
        return int(found[1]) / 1024

    def ask(self, port: int, method: str, path: str, body: object = None) -> bytes:
        """A request to a port of the pod's loopback, where no sidecar is in between."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.sock = _connected_in(self.network, port)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return content
        finally:
            connection.close()


class Upstream(Process):
    """A scripted server's admin port."""

    def __init__(self, pod: str) -> None:
        super().__init__(pod, "python3")

    def counts(self) -> dict[str, Any]:
        """`total`, `by_probe`, `open`, `most_open` since the last `forget`."""
        return self._admin("GET", "/counts")

    def seen(self, probe: str | None = None) -> list[dict[str, Any]]:
        """The last requests, as `Seen` has them: those of a probe, or all."""
        query = "" if probe is None else f"?probe={probe}"
        return self._admin("GET", f"/seen{query}")["requests"]

    def forget(self) -> None:
        """Forgets what was seen."""
        self._admin("POST", "/forget")

    def always(self, **script: Any) -> None:
        """Answers all requests by this script, whatever they ask for; by none: as they ask."""
        self._admin("POST", "/state", {"script": script or None})

    def set_ready(self, ready: bool) -> None:
        """Chooses what it answers its readiness probe."""
        self._admin("POST", "/state", {"ready": ready})

    def _admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return json.loads(self.ask(ADMIN_PORT, method, path, body))


class Proxy(Process):
    """The admin port of a pod's Envoy."""

    def __init__(self, pod: str) -> None:
        super().__init__(pod, "envoy")

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names match a regular expression."""
        said = self.ask(_ENVOY_ADMIN_PORT, "GET", f"/stats?format=json&filter={pattern}")
        return {each["name"]: each["value"] for each in json.loads(said)["stats"] if "name" in each}

    def config(self) -> str:
        """All of its configuration, as JSON text."""
        return self.ask(_ENVOY_ADMIN_PORT, "GET", "/config_dump?include_eds").decode()

    def ask_admin(self, path: str, method: str = "GET") -> str:
        """What the admin port answers."""
        return self.ask(_ENVOY_ADMIN_PORT, method, path).decode()


@dataclass(frozen=True)
class Lab:
    """The lab, while it is up."""

    environment: Environment

    @property
    def core(self) -> Any:
        """Kubernetes' core API."""
        return self.environment.core

    @property
    def custom(self) -> Any:
        """Kubernetes' API of custom resources."""
        return self.environment.custom

    @cached_property
    def voices(self) -> dict[str, str]:
        """The tenant of each voice, by its name."""
        return _stack().outputs()["voices"]

    def token(self, tenant: str | None = TENANT, **claims: Any) -> str:
        """A token that the environment's issuer might have issued; see `TokenFiles.token`."""
        return tokens.token_files().token(tenant=tenant, **claims)

    def asking(self, script: Script | Mapping[str, Any] | None = None, **fields: Any) -> Request:
        """As `asking`, with a token of a basic user of `TENANT` unless another is given."""
        return asking(script, **{"token": self.token(), **fields})

    def public(self, voice: str = "plain", **fields: Any) -> Caller:
        """A client outside the cluster that calls a voice through the gateway."""
        host = f"{voice}.{DOMAIN}"
        port = OTHER_GATEWAYS.get(voice, HTTPS_NODE_PORT)
        target = Target(SYSTEM.address, port, host, str(GATEWAY_AUTHORITY))
        return Caller(network.NAMESPACES / _CLIENT_NAMESPACE, dataclasses.replace(target, **fields))

    def outside(self, address: str, port: int, host: str = "") -> Caller:
        """A client outside the cluster that calls an address, without TLS."""
        return Caller(
            network.NAMESPACES / _CLIENT_NAMESPACE, Target(address, port, host or address)
        )

    def beside(self, voice: str = "plain") -> Caller:
        """A client in the network of one of a voice's pods, which calls it without any proxy."""
        pod = self.pods(voice)[0].metadata.name
        return Caller(Upstream(pod).network, Target("127.0.0.1", HTTP_PORT, pod))

    def load(self, *requests: Request, voice: str = "plain", **how: Any) -> list[Answer]:
        """Sends requests to a voice through the gateway and awaits their answers."""
        return self.public(voice).load(*requests, **how)

    def start(self, *requests: Request, voice: str = "plain", **how: Any) -> Running:
        """Begins to send requests to a voice through the gateway."""
        return self.public(voice).start(*requests, **how)

    def request(self, request: Request, voice: str = "plain", **how: Any) -> Answer:
        """Sends one request to a voice through the gateway."""
        return self.public(voice).request(request, **how)

    def inside(self, voice: str = "plain", tenant: str = TENANT, account: str = "caller") -> Caller:
        """A pod with a sidecar and a service account that calls a voice within the mesh.

        It is made where there is none, and stays until the lab goes.
        """
        self._ensure_caller(tenant, account)
        service = self.core.read_namespaced_service(voice, self.voices[voice])
        host = f"{voice}.{self.voices[voice]}.svc.cluster.local:{HTTP_PORT}"
        target = Target(service.spec.cluster_ip, HTTP_PORT, host)
        return Caller(Proxy(caller_name(account, tenant)).network, target)

    def pods(self, voice: str, variant: str | None = None) -> list[Any]:
        """A voice's pods that are Ready and not about to go, by name."""
        labels = {APP_LABEL: voice} | ({VARIANT_LABEL: variant} if variant else {})
        return self.ready_pods(self.voices[voice], **labels)

    def gateway_pods(self) -> list[Any]:
        """The gateway's pods that are Ready and not about to go."""
        return self.ready_pods(GATEWAY_NAMESPACE, **{APP_LABEL: GATEWAY})

    def ready_pods(self, namespace: str, **labels: str) -> list[Any]:
        """Pods with these labels that are Ready and not about to go, by name."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        ready = [pod for pod in pods if is_ready(pod) and not pod.metadata.deletion_timestamp]
        return sorted(ready, key=lambda pod: pod.metadata.name)

    def upstreams(self, voice: str, variant: str | None = None) -> dict[str, Upstream]:
        """The scripted servers of a voice, by the names of their pods."""
        names = [pod.metadata.name for pod in self.pods(voice, variant)]
        return {name: Upstream(name) for name in names}

    def gateways(self) -> dict[str, Proxy]:
        """The gateway's proxies, by the names of their pods."""
        names = [pod.metadata.name for pod in self.gateway_pods()]
        return {name: Proxy(name) for name in names}

    def sidecars(self, voice: str, variant: str | None = None) -> dict[str, Proxy]:
        """The sidecars of a voice's pods, by their names."""
        names = [pod.metadata.name for pod in self.pods(voice, variant)]
        return {name: Proxy(name) for name in names}

    def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """An object of one of `KINDS`."""
        group, version, plural = KINDS[kind]
        return self.custom.get_namespaced_custom_object(group, version, namespace, plural, name)

    def patch(self, kind: str, namespace: str, name: str, spec: Mapping[str, Any]) -> None:
        """Merges into an object's spec (RFC 7386: None removes a field, lists are replaced)."""
        group, version, plural = KINDS[kind]
        self.custom.patch_namespaced_custom_object(
            group, version, namespace, plural, name, {"spec": spec}
        )

    @contextmanager
    def patched(
        self, kind: str, namespace: str, name: str, spec: Mapping[str, Any]
    ) -> Iterator[None]:
        """For a while, an object's spec has this merged into it."""
        before = self.read(kind, namespace, name)["spec"]
        self.patch(kind, namespace, name, spec)
        try:
            yield
        finally:
            now = self.read(kind, namespace, name)
            group, version, plural = KINDS[kind]
            self.custom.replace_namespaced_custom_object(
                group, version, namespace, plural, name, {**now, "spec": before}
            )

    @contextmanager
    def without(self, kind: str, namespace: str, name: str) -> Iterator[None]:
        """For a while, there is no such object."""
        group, version, plural = KINDS[kind]
        there = self.read(kind, namespace, name)
        self.custom.delete_namespaced_custom_object(group, version, namespace, plural, name)
        try:
            yield
        finally:
            kept = ("name", "labels", "annotations")
            metadata = {key: value for key, value in there["metadata"].items() if key in kept}
            again = {key: there[key] for key in ("apiVersion", "kind", "spec")}
            self.custom.create_namespaced_custom_object(
                group, version, namespace, plural, {**again, "metadata": metadata}
            )

    @contextmanager
    def object(
        self, kind: str, namespace: str, name: str, spec: Mapping[str, Any]
    ) -> Iterator[None]:
        """For a while, there is an object with this spec."""
        group, version, plural = KINDS[kind]
        made = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name}}
        self.custom.create_namespaced_custom_object(
            group, version, namespace, plural, {**made, "spec": spec}
        )
        try:
            yield
        finally:
            self.custom.delete_namespaced_custom_object(group, version, namespace, plural, name)

    def access_log(self, since_seconds: int | None = None) -> list[str]:
        """Lines of the gateway's access logs, of all its pods that there are."""
        selector = f"{APP_LABEL}={GATEWAY}"
        pods = self.core.list_namespaced_pod(GATEWAY_NAMESPACE, label_selector=selector).items
        further = {} if since_seconds is None else {"since_seconds": since_seconds}
        logs = [
            self.core.read_namespaced_pod_log(pod.metadata.name, GATEWAY_NAMESPACE, **further)
            for pod in pods
        ]
        return [line for log in logs for line in log.splitlines() if line.startswith("[20")]

    def _ensure_caller(self, namespace: str, account: str) -> None:
        name = caller_name(account, namespace)
        present = self.core.list_namespaced_pod(namespace, label_selector=f"app={name}").items
        if not present:
            if not _named(self.core.list_namespaced_service_account(namespace).items, account):
                self.core.create_namespaced_service_account(
                    namespace, {"metadata": {"name": account}}
                )
            self.core.create_namespaced_pod(namespace, caller_pod(name, account))
        eventually(lambda: self.ready_pods(namespace, app=name), 90, f"{name} is ready")


def caller_name(account: str, namespace: str) -> str:
    """Name of a pod that calls by an account, and of its app: no other namespace has that name, for
    processes are found by the names of their pods."""
    return f"caller-{account}-of-{namespace}"


def caller_pod(name: str, account: str) -> dict[str, Any]:
    """A pod that does nothing but have a sidecar."""
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "nothing",
                    "image": images.reference("pause"),
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def separate_share(answer: Answer, sizes: Sequence[int]) -> float:
    """Which share of the parts that a server sent came with no byte of another in the same read."""
    part_of = [number for number, size in enumerate(sizes) for _ in range(size)]
    together: set[int] = set()
    position = 0
    for _, size in answer.arrivals:
        parts = set(part_of[position : position + size])
        position += size
        if len(parts) > 1:
            together |= parts
    return 1 - len(together) / len(sizes)


def ensure_client_network() -> None:
    """Joins a network namespace for clients to the hub, where there is none."""
    if (network.NAMESPACES / _CLIENT_NAMESPACE).exists():
        return
    what = f"making the network namespace {_CLIENT_NAMESPACE}"
    run_command(["ip", "netns", "add", _CLIENT_NAMESPACE], what)
    link = f"link add {_CLIENT_LINK} type veth peer name eth0 netns {_CLIENT_NAMESPACE}"
    _ip(HUB, [link, f"link set {_CLIENT_LINK} master {HUB_BRIDGE} up"])
    routes = [f"route add {node.pod_range} via {node.address}" for node in NODES]
    address = f"address add {CLIENT_ADDRESS}/24 dev eth0"
    _ip(_CLIENT_NAMESPACE, ["link set lo up", address, "link set eth0 up", *routes])


def remove_client_network() -> None:
    """Takes it away, where there is one."""
    if (network.NAMESPACES / _CLIENT_NAMESPACE).exists():
        what = f"deleting the network namespace {_CLIENT_NAMESPACE}"
        run_command(["ip", "netns", "delete", _CLIENT_NAMESPACE], what)


def up() -> None:
    """Brings the lab up, or up to date with its program."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack = _stack()
        if not is_up():
            stack.init()
        (_FOLDER / "__main__.py").write_text((PROGRAMS / _PROGRAM).read_text())
        said = stack.up(**_configuration())
        assert said.startswith("exit 0"), said
        ensure_client_network()


def is_up() -> bool:
    """Whether there is a lab."""
    return (_FOLDER / "Pulumi.yaml").exists()


def down() -> None:
    """Takes the lab away."""
    if is_up():
        _stack().destroy()
        shutil.rmtree(_FOLDER)
    remove_client_network()


@pytest.fixture(scope="session")
def lab(hosted: None, pytestconfig: pytest.Config) -> Iterator[Lab]:
    """The lab, brought up once; it goes with the environment, or before (`without_lab`)."""
    running = pytestconfig.getoption("--running")
    if not (running and is_up()):
        up()
    ensure_client_network()
    yield Lab(Environment.running())
    if not running:
        remove_client_network()


@pytest.fixture(scope="session")
def without_lab(hosted: None) -> None:
    """The environment is by itself, for tests of what is left of it."""
    down()


def _stack() -> SmallStack:
    return SmallStack(_FOLDER, _PROGRAM)


def _configuration() -> dict[str, str]:
    certificate, key = _FOLDER / "tls.crt", _FOLDER / "tls.key"
    if not key.exists():
        authority = Authority(GATEWAY_AUTHORITY, GATEWAY_AUTHORITY.with_suffix(".key"))
        pair = authority.issue(DOMAIN, hosts=[f"*.{DOMAIN}"])
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
    return {
        "certificate": str(certificate),
        "key": str(key),
        "charts": str(CHARTS),
        "image": images.reference("scripted-upstream"),
        "ratelimit": images.reference("ratelimit"),
        "redis": images.reference("redis"),
        "waf": images.reference("waf"),
    }


def _ip(namespace: str, commands: Sequence[str]) -> None:
    what = f"setting up the network namespace {namespace}"
    run_command(["ip", "-netns", namespace, "-batch", "-"], what, stdin="\n".join(commands) + "\n")


def _named(things: Sequence[Any], name: str) -> bool:
    return any(thing.metadata.name == name for thing in things)


def _pid(pod: str, command: str) -> int | None:
    """The process of this name whose host name is the pod's."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip() != command:
                continue
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"HOSTNAME={pod}".encode() in environ:
            found.append(int(entry.name))
    assert len(found) < 2, f"several processes {command} in pods named {pod}: {found}"
    return found[0] if found else None


def _connected_in(namespace: Path, port: int) -> socket.socket:
    """A connection to a port of the loopback of another network namespace.

    A thread of its own enters it: a socket stays in the namespace in which it was made.
    """
    made: list[socket.socket | OSError] = []

    def connect() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            with namespace.open() as handle:
                if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns: {namespace}")
            made.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    return result


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
