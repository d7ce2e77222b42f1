"""The lab under load, while pods die and gateway, weights and policies change."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import kubernetes.client

from tests.e2e.access_log import AccessLogs, Entry
from tests.e2e.environment import eventually
from tests.e2e.lab import (
    GATEWAY,
    GATEWAY_NAMESPACE,
    OTHER_TENANT,
    TENANT,
    Lab,
    Process,
    Proxy,
    Running,
    Upstream,
    caller_name,
    new_probe,
)
from tests.e2e.load import Answer, Request
from tests.e2e.scripted_upstream.server import POD_HEADER, Script, body_bytes
from voicemesh.contract import SPEECH_PATH

VOICES: Final = {"steady": TENANT, "chorus": OTHER_TENANT}
CALLER: Final = "soak"
CALLER_POD: Final = caller_name(CALLER, TENANT)
LONGEST_SECONDS: Final = 3_600

FLAGS_OF_A_DEATH: Final = {"UC", "UF", "UR", "URX", "UPE"}
"""How Envoy marks that the pod that it called, or the connection to it, broke off. UPE, a protocol
error, is for one that did so within a chunk."""

KNOWN_SECONDS: Final = 3.0
"""By then, all proxies know that a pod is gone."""

LOGGED_SECONDS: Final = 20.0
"""A proxy writes its log that often at the least, and the kubelet what it has read of it."""

STREAM: Final = Script(chunks=75, size=1_920, pause_ms=40)
EVENTS: Final = Script(chunks=40, size=400, pause_ms=50, sse=True)
SCRIPTS: Final = {"stream": STREAM, "events": EVENTS}


@dataclass(frozen=True)
class Kill:
    """The death of a pod that a test has caused.

    Attributes:
        pod: its name.
        address: its IP address.
        at: when, on the machine's monotonic clock.
    """

    pod: str
    address: str
    at: float


@dataclass
class Record:
    """What was done to the lab, and what came of it."""

    kills: list[Kill] = field(default_factory=list)
    changes: list[tuple[float, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def failures(self) -> list[Answer]:
        """Answers that are not what their request was promised."""
        return [answer for answer in self.answers if not is_as_promised(answer)]


def is_as_promised(answer: Answer) -> bool:
    """Whether it is whole, good, and has exactly the bytes that its script says."""
    if answer.tag == "conversation":
        return (answer.status, answer.outcome) == (101, "complete")
    script = SCRIPTS.get(answer.tag)
    exact = script is None or answer.sha256 == hashlib.sha256(body_bytes(script)).hexdigest()
    return answer.is_good and exact


def is_doing_of(kill: Kill, answer: Answer, entry: Entry | None) -> bool:
    """Whether a failure was of the pod that was killed, by its name or address, by how the proxy
    marks it, and by when it was."""
    if entry is None or not entry.flags & FLAGS_OF_A_DEATH:
        return False
    if answer.headers.get(POD_HEADER, kill.pod) != kill.pod or entry.upstream != kill.address:
        return False
    return answer.started <= kill.at + KNOWN_SECONDS and answer.ended >= kill.at


class Soak:
    """The lab under load and disturbance.

    Args:
        lab: the lab.
        record: gets what happens.
    """

    def __init__(self, lab: Lab, record: Record) -> None:
        self._lab = lab
        self._record = record
        self._apps: Any = kubernetes.client.AppsV1Api(lab.core.api_client)

    def loads(self) -> list[Running]:
        """Requests of two tenants from outside, and of one within the mesh, until they are told to
        stop."""
        lab, run = self._lab, new_probe("soak")
        steady, chorus = lab.public("steady"), lab.public("chorus")
        inside = lab.inside("steady", account=CALLER)
        mine, theirs = lab.token(), lab.token(tenant=OTHER_TENANT)

        def asked(kind: str, token: str | None, **fields: Any) -> Request:
            path = f"{SPEECH_PATH}?{run}-{kind}-{{n}}"
            script = SCRIPTS.get(kind)
            return lab.asking(script, token=token, path=path, tag=kind, **fields)

        talk = {"messages": [960] * 15, "message_pause_ms": 200}
        for_ever = {"seconds": LONGEST_SECONDS, "timeout_seconds": 60}
        return [
            steady.start(asked("question", mine), concurrency=4, per_second=12, **for_ever),
            steady.start(asked("stream", mine), concurrency=6, **for_ever),
            steady.start(asked("conversation", mine, **talk), concurrency=2, **for_ever),
            chorus.start(asked("question", theirs), concurrency=2, per_second=6, **for_ever),
            chorus.start(asked("events", theirs), concurrency=4, **for_ever),
            inside.start(asked("stream", None), concurrency=2, **for_ever),
            inside.start(asked("question", None), concurrency=2, per_second=6, **for_ever),
        ]

    def kill(self, voice: str, recorded: bool = True) -> None:
        """Kills a pod, sidecar and server at the same moment, and awaits the next one."""
        pods = self._lab.pods(voice, "stable")
        name, namespace = pods[0].metadata.name, pods[0].metadata.namespace
        pids = [Proxy(name).pid, Upstream(name).pid]
        at = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._lab.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        if recorded:
            self._record.kills.append(Kill(name, pods[0].status.pod_ip, at))
        self._note(f"killed {name}")
        wanted = len(pods)
        eventually(lambda: len(self._lab.pods(voice, "stable")) == wanted, 90, f"{voice} is whole")

    def shift_weights(self) -> None:
        """Another split between the voice's variants, for the public and within the mesh."""
        for suffix in ("public", "mesh"):
            routes = self._lab.read("VirtualService", TENANT, f"steady-{suffix}")["spec"]["http"]
            self._lab.patch("VirtualService", TENANT, f"steady-{suffix}", {"http": shifted(routes)})
        self._note("shifted weights")

    def change_policy(self) -> None:
        """Other rules about paths that nobody asks for, at the voice and at the gateway."""
        number = len(self._record.changes)
        for namespace, name in ((TENANT, "steady"), (GATEWAY_NAMESPACE, GATEWAY)):
            rule = {"to": [{"operation": {"paths": [f"/never/{number}"]}}]}
            self._lab.patch("AuthorizationPolicy", namespace, f"soak-{name}", {"rules": [rule]})
        self._note("changed policies")

    def restart_gateway(self) -> None:
        """Replaces the gateway's pods, one by one, as an update of it does."""
        stamp = {"voicemesh.io/restarted": str(time.time())}
        template = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
        before = {pod.metadata.name for pod in self._lab.gateway_pods()}
        self._apps.patch_namespaced_deployment(GATEWAY, GATEWAY_NAMESPACE, template)
        eventually(
            lambda: (
                len(self._lab.gateway_pods()) == len(before)
                and not before & {pod.metadata.name for pod in self._lab.gateway_pods()}
            ),
            120,
            "the gateway's pods are new",
        )
        self._note("restarted the gateway")

    def _note(self, change: str) -> None:
        self._record.changes.append((time.monotonic(), change))


def shifted(routes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Routes that split requests between two variants the other way round."""
    changed = copy.deepcopy([*routes])
    for route in changed:
        if len(route["route"]) == 2:
            one, other = route["route"]
            one["weight"], other["weight"] = other["weight"], one["weight"]
    return changed


def run_soak(
    lab: Lab, seconds: float, steps: Callable[[Soak], Sequence[Callable[[], None]]]
) -> Record:
    """Lets the load run while the steps are taken in turn, each a while after the one before."""
    record = Record()
    soak = Soak(lab, record)
    with ExitStack() as stack:
        logs = stack.enter_context(
            AccessLogs(f"{GATEWAY_NAMESPACE}_{GATEWAY}", f"{TENANT}_{CALLER_POD}")
        )
        stack.enter_context(_soaked(lab))
        running = soak.loads()
        for each in running:
            stack.callback(each.kill)
        until = time.monotonic() + seconds
        for step in itertools.cycle(steps(soak)):
            time.sleep(2)
            if time.monotonic() >= until:
                break
            step()
        record.answers = [answer for each in running for answer in each.stop()]
        record.entries = _logged(logs, {answer.path for answer in record.failures})
    return record


def _logged(logs: AccessLogs, paths: set[str]) -> dict[str, Entry]:
    """What was logged, once these paths are, or a while after they should have been."""
    with suppress(AssertionError):  # a request whose proxy died is never logged
        eventually(lambda: paths <= logs.by_path().keys(), LOGGED_SECONDS)
    return logs.by_path()


@contextmanager
def _soaked(lab: Lab) -> Iterator[None]:
    """What the steps change, put back at the end; and a log of what the caller's proxy did."""

    def denial(labels: dict[str, str]) -> dict[str, Any]:
        rule = {"to": [{"operation": {"paths": ["/never"]}}]}
        return {"selector": {"matchLabels": labels}, "action": "DENY", "rules": [rule]}

    log = {
        "selector": {"matchLabels": {"app": CALLER_POD}},
        "accessLogging": [{"providers": [{"name": "envoy"}]}],
    }
    with ExitStack() as stack:
        for suffix in ("public", "mesh"):
            stack.enter_context(lab.patched("VirtualService", TENANT, f"steady-{suffix}", {}))
        for namespace, name, labels in (
            (TENANT, "steady", {"app": "steady"}),
            (GATEWAY_NAMESPACE, GATEWAY, {"istio": GATEWAY}),
        ):
            stack.enter_context(
                lab.object("AuthorizationPolicy", namespace, f"soak-{name}", denial(labels))
            )
        stack.enter_context(lab.object("Telemetry", TENANT, "soak", log))
        lab.inside("steady", account=CALLER)
        yield


@dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        files: open file descriptors, connections included, one of each socket.
        draining: file descriptors that a changed listener's former filter chains hold, one per
            worker, until the longest stream on them could have ended. Two of each socket stay: the
            one that its worker began with, and the one of the latest configuration.
        memory_mib: resident memory.
        streams: requests that it serves.
    """

    files: int
    draining: int
    memory_mib: float
    streams: int


def held(lab: Lab) -> dict[str, dict[str, Held]]:
    """What each process holds, by its kind and by its pod."""
    kinds: dict[str, dict[str, Held]] = {
        "gateway": {pod: _held_by_proxy(proxy) for pod, proxy in lab.gateways().items()},
        "caller": {CALLER: _held_by_proxy(Proxy(CALLER_POD))},
    }
    for voice in VOICES:
        kinds[f"sidecar of {voice}"] = {
            pod: _held_by_proxy(proxy) for pod, proxy in lab.sidecars(voice).items()
        }
        kinds[f"server of {voice}"] = {
            pod: _held(upstream, upstream.counts()["open"])
            for pod, upstream in lab.upstreams(voice).items()
        }
    return kinds


def _held_by_proxy(proxy: Proxy) -> Held:
    hosts = [line.split("::") for line in proxy.ask_admin("/clusters").splitlines()]
    voices = tuple(f"|{voice}.{tenant}." for voice, tenant in VOICES.items())
    active = [
        int(host[3])
        for host in hosts
        if len(host) == 4
        and host[2] == "rq_active"
        and (host[0].startswith("inbound") or any(voice in host[0] for voice in voices))
    ]
    return _held(proxy, sum(active))


def _held(process: Process, streams: int) -> Held:
    duplicates = [count - 1 for count in process.sockets.values() if count > 1]
    files = process.open_files - sum(duplicates)
    return Held(files, sum(duplicates) - len(duplicates), process.memory_mib, streams)
