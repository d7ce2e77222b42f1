"""What dies is replaced: a speech pod by Kubernetes, the rest by the next `make up`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.local import network, processes, stack
from infra.local.speak import sentences, speak
from tests.e2e.environment import Environment, eventually, local
from voicemesh.contract import SPEECH_PATH

_STREAMS = 6
_STATISTICS_PORT = 15020


def test_killing_a_speech_pod_loses_its_streams_only(
    environment: Environment, tmp_path: Path
) -> None:
    with ExitStack() as streams:
        opened = [streams.enter_context(_held_stream(environment)) for _ in range(_STREAMS)]
        in_flight = {
            pod.metadata.name: _streams_of(pod.status.pod_ip) for pod in environment.speech_pods()
        }
        assert sum(in_flight.values()) == _STREAMS
        victim = max(environment.speech_pods(), key=lambda pod: in_flight[pod.metadata.name])
        _kill_server_of(victim)
        lost = sum(_is_lost(stream) for stream in opened)
    assert lost == in_flight[victim.metadata.name]
    assert speak(environment.door, None, tmp_path / "a.wav").audio_seconds > 1
    eventually(lambda: len(environment.speech_pods()) == 3, what="the pod is ready again")


class _held_stream:  # noqa: N801  # used as the function it behaves like
    """A long answer of which only the beginning was read, so that its pod is still at it."""

    def __init__(self, environment: Environment) -> None:
        self._client = environment.door.client(timeout_seconds=120)

    def __enter__(self) -> Iterator[bytes]:
        body = {"model": "tts-1", "voice": "heart", "response_format": "pcm"}
        body["input"] = " ".join(sentences()[:45])
        request = self._client.build_request("POST", SPEECH_PATH, json=body)
        self._answer = self._client.send(request, stream=True)
        assert self._answer.status_code == 200
        rest = self._answer.iter_raw(65_536)
        next(rest)
        return rest

    def __exit__(self, *error: object) -> None:
        self._answer.close()
        self._client.close()


def _is_lost(stream: Iterator[bytes]) -> bool:
    try:
        for _ in stream:
            pass
    except httpx.TransportError:
        return True
    return False


def _streams_of(address: str) -> int:
    """Requests that a pod's sidecar is passing to its server, by the sidecar's own count."""
    program = (
        "import sys, httpx\n"
        "print(httpx.get(sys.argv[1], timeout=5, trust_env=False).text)\n"
    )
    url = f"http://{address}:{_STATISTICS_PORT}/stats/prometheus"
    argv = network.in_hub([sys.executable, "-c", program, url])
    shown = subprocess.run(argv, text=True, capture_output=True, check=True).stdout
    return sum(
        int(line.rpartition(" ")[2])
        for line in shown.splitlines()
        if line.startswith("voicemesh_") and "in_progress" in line
    )


def _kill_server_of(pod: Any) -> None:
    """Kills the server's process: the one in the pod's control groups that runs our module."""
    uid = pod.metadata.uid
    for process in psutil.process_iter(["pid", "cmdline"]):
        groups = Path(f"/proc/{process.pid}/cgroup")
        if "speech_server" in (process.info["cmdline"] or []) and uid in groups.read_text():
            os.kill(process.pid, signal.SIGKILL)
            return
    pytest.fail(f"no speech server runs in the pod {pod.metadata.name}")


@pytest.mark.parametrize("daemon", ["kube-apiserver", "containerd-online", "kubelet-online"])
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
