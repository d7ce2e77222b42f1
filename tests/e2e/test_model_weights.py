"""A voice speaks with the weights that were pinned, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from kubernetes.stream import stream

from infra.local.topology import AWS_PORT, HUB_ADDRESS
from tests.e2e.environment import Environment, eventually, is_ready
from tests.e2e.small_stack import SmallStack
from voicemesh.contract import WEIGHTS_MANIFEST

NAMESPACE = "weighty"
BUCKET = "weighty-models"
PREFIX = "models/alto/1.0/"
OBJECTS = {
    "config.json": b"{}",
    "layers/0.bin": b"0123456789" * 300_000,
    "layers/1.bin": b"abcde" * 1_000_000,
}


class Models:
    """A bucket with the weights of one model."""

    def __init__(self) -> None:
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{AWS_PORT}",
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="any",
        )
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=PREFIX + name, Body=content)

    def publish(self) -> str:
        """Puts all objects and their manifest; the manifest's digest."""
        lines = [f"{hashlib.sha256(it).hexdigest()}  {name}\n" for name, it in OBJECTS.items()]
        manifest = "".join(lines).encode()
        for name, content in {**OBJECTS, WEIGHTS_MANIFEST: manifest}.items():
            self.put(name, content)
        return hashlib.sha256(manifest).hexdigest()

    def delete(self) -> None:
        for name in (*OBJECTS, WEIGHTS_MANIFEST):
            self._client.delete_object(Bucket=BUCKET, Key=PREFIX + name)
        self._client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def models(environment: Environment) -> Iterator[Models]:
    models = Models()
    yield models
    models.delete()


@pytest.fixture
def small_stack(environment: Environment, tmp_path: Path) -> Iterator[SmallStack]:
    stack = SmallStack(tmp_path, "voice_with_weights.py")
    stack.init()
    yield stack
    stack.destroy()


def test_weights_are_verified_before_the_voice_speaks_and_a_corrupt_object_keeps_it_silent(
    environment: Environment, models: Models, small_stack: SmallStack
) -> None:
    said = small_stack.up(
        uri=f"s3://{BUCKET}/{PREFIX}",
        sha256=models.publish(),
        endpoint=f"http://{HUB_ADDRESS}:{AWS_PORT}",
        storage_cidr=f"{HUB_ADDRESS}/32",
    )
    assert said.startswith("exit 0"), said
    (pod,) = _pods(environment)
    assert is_ready(pod)
    assert _digests_in(environment, pod) == {
        name: hashlib.sha256(content).hexdigest() for name, content in OBJECTS.items()
    }
    assert "0.005 GiB verified" in _log(environment, pod, "weights")

    models.put("layers/1.bin", OBJECTS["layers/1.bin"][:-1] + b"?")
    environment.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE)
    refused = eventually(lambda: _refused(environment), 120, "the weights are refused")
    reason = f"no weights: s3://{BUCKET}/{PREFIX}layers/1.bin has the SHA-256"
    assert reason in _fetcher(refused).last_state.terminated.message
    # The kubelet keeps the log of the last try only, which the next one replaces at some moment.
    eventually(
        lambda: reason in _log(environment, refused, "weights", previous=True),
        120,
        "the log gives the reason",
    )
    assert not is_ready(refused)
    server = next(it for it in refused.status.container_statuses if it.name == "speech-server")
    assert server.state.running is None

    models.put("layers/1.bin", OBJECTS["layers/1.bin"])
    eventually(lambda: is_ready(_pods(environment)[0]), 120, "the voice speaks once it is mended")


def _pods(environment: Environment) -> list[Any]:
    pods = environment.core.list_namespaced_pod(NAMESPACE, label_selector="app=alto").items
    return [pod for pod in pods if not pod.metadata.deletion_timestamp]


def _fetcher(pod: Any) -> Any:
    return next(it for it in pod.status.init_container_statuses if it.name == "weights")


def _refused(environment: Environment) -> Any:
    """The pod whose weights were refused, once the kubelet has begun to try again."""
    return next(pod for pod in _pods(environment) if _fetcher(pod).last_state.terminated)


def _log(environment: Environment, pod: Any, container: str, previous: bool = False) -> str:
    return environment.core.read_namespaced_pod_log(
        pod.metadata.name, NAMESPACE, container=container, previous=previous
    )


def _digests_in(environment: Environment, pod: Any) -> dict[str, str]:
    """What the speech server sees in its folder of weights."""
    found = stream(
        environment.core.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        NAMESPACE,
        container="speech-server",
        command=["sh", "-c", 'cd "$SPEECH_MODEL_DIRECTORY"; find . -type f | xargs sha256sum'],
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
    )
    lines = (line.split("  ./") for line in found.splitlines())
    return {name: digest for digest, name in lines}
