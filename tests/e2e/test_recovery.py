"""What dies is replaced: a speech pod by Kubernetes, the rest by the next `make up`."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from kubernetes.stream import stream

from infra.local import processes, stack
from infra.local.speak import sentences, speak
from infra.local.up import ISSUER_DAEMON
from tests.e2e.environment import NAMESPACE, Environment, eventually, local
from voicemesh.contract import (
    HTTP_PORT,
    METRICS_PATH,
    REQUEST_ID_HEADER,
    RUNNING_METRIC,
    SPEECH_PATH,
    UNREAD_AUDIO_METRIC,
)

pytestmark = pytest.mark.usefixtures("without_lab")

_STREAMS = 6
_SENTENCES = 50
_CONTAINER = "speech-server"


def test_killing_a_speech_pod_loses_its_streams_only(
    environment: Environment, tmp_path: Path
) -> None:
    with ExitStack() as closing:
        streams = [closing.enter_context(HeldStream(environment)) for _ in range(_STREAMS)]
        victim = max(environment.speech_pods(), key=lambda pod: _work_of(environment, pod))
        others = [pod for pod in environment.speech_pods() if not _is_same(pod, victim)]
        _kill_server_of(victim)
        survived = {stream.request_id for stream in streams if stream.ends_well()}

    def served_by_others() -> set[str]:
        logs = "".join(_log_of(environment, pod) for pod in others)
        return {stream.request_id for stream in streams if stream.request_id in logs}

    eventually(lambda: served_by_others() == survived, what="the others served what survived")
    assert 0 < len(survived) < _STREAMS
    assert speak(environment.door, None, tmp_path / "a.wav").audio_seconds > 1
    eventually(lambda: len(environment.speech_pods()) == 3, what="the pod is ready again")


class HeldStream:
    """A long answer of which only the beginning is read, so that its pod is still at it."""

    def __init__(self, environment: Environment) -> None:
        self._client = environment.door.client(timeout_seconds=120)

    def __enter__(self) -> HeldStream:
        request = self._client.build_request(
            "POST",
            SPEECH_PATH,
            json={
                "model": "tts-1",
                "voice": "heart",
                "response_format": "pcm",
                "input": " ".join(sentences()[:_SENTENCES]),
            },
        )
        self._answer = self._client.send(request, stream=True)
        assert self._answer.status_code == 200, self._answer.read()
        # The gateway gives each request an id of its own.
        self.request_id = self._answer.headers[REQUEST_ID_HEADER]
        self._rest = self._answer.iter_raw(65_536)
        next(self._rest)
        return self

    def ends_well(self) -> bool:
        """Reads the rest; whether the stream ended as it should."""
        try:
            for _ in self._rest:
                pass
        except httpx.TransportError:
            return False
        return True

    def __exit__(self, *error: object) -> None:
        self._answer.close()
        self._client.close()


def _is_same(pod: Any, other: Any) -> bool:
    return pod.metadata.uid == other.metadata.uid


def _log_of(environment: Environment, pod: Any) -> str:
    return environment.core.read_namespaced_pod_log(
        pod.metadata.name, NAMESPACE, container=_CONTAINER
    )


def _work_of(environment: Environment, pod: Any) -> float:
    """How much a pod's server has in hand, asked from inside the pod."""
    program = (
        "from urllib.request import urlopen\n"
        f"print(urlopen('http://127.0.0.1:{HTTP_PORT}{METRICS_PATH}').read().decode())"
    )
    shown = stream(
        environment.core.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        NAMESPACE,
        container=_CONTAINER,
        command=["python3", "-c", program],
        stdout=True,
        stderr=True,
    )
    lines = dict(line.rpartition(" ")[::2] for line in shown.splitlines())
    return float(lines[RUNNING_METRIC]) + float(lines[UNREAD_AUDIO_METRIC])


def _kill_server_of(pod: Any) -> None:
    """Kills the server's process: the one in the pod's control groups that runs our module."""
    uid = pod.metadata.uid
    for process in psutil.process_iter(["pid", "cmdline"]):
        groups = Path(f"/proc/{process.pid}/cgroup")
        if "speech_server" in (process.info["cmdline"] or []) and uid in groups.read_text():
            os.kill(process.pid, signal.SIGKILL)
            return
    pytest.fail(f"no speech server runs in the pod {pod.metadata.name}")


@pytest.mark.parametrize(
    "daemon", ["kube-apiserver", "online-containerd", "online-kubelet", ISSUER_DAEMON]
)
def test_up_recovers_from_a_killed(environment: Environment, tmp_path: Path, daemon: str) -> None:
    process = processes.running(daemon)
    assert process, f"{daemon} is not among {processes.recorded_daemons()}"
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: processes.running(daemon) is None, what=f"{daemon} is gone")

    up = local("up")

    assert up.returncode == 0, up.stdout + up.stderr
    assert processes.running(daemon)
    assert speak(environment.door, None, tmp_path / "a.wav").audio_seconds > 1
    assert stack.preview().total == 0
