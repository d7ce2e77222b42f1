"""GLM-TTS speaks through the mesh: a tiny model of random weights, in the published layout.

What it says is noise, but of the right length and format, and it is heard while it is made.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import wave
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest

from infra.local.node_root import node_root
from infra.local.paths import CHECKOUT
from infra.local.topology import AWS_PORT, NODES
from tests.e2e.environment import Environment, eventually
from tests.e2e.figures import note
from tests.e2e.lab import Lab, Process
from tests.e2e.load import Answer, Request
from tests.e2e.small_stack import SmallStack
from voicemesh.contract import AUDIO_SECONDS_METRIC, HTTP_PORT, METRICS_PATH

NAMESPACE = "studio"
BUCKET = "studio-models"
URI = f"s3://{BUCKET}/models/glm-tts/0.1.0/"
ENGINE = CHECKOUT / ".venv-engine"
SAMPLE_RATE_HZ = 24_000
BYTES_PER_ID = 2 * SAMPLE_RATE_HZ // 25
STORAGE = {
    "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{AWS_PORT}",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "any",
}
SHORT, LONG = "你好，中国。", "人果你好我是的他在有了。"


@pytest.fixture(scope="module")
def nodes_with_torch(lab: Lab) -> Iterator[None]:
    """Links to the files of `.venv-engine`, and to the engine, in the file system of each node."""
    (site,) = ENGINE.glob("lib/python3.*/site-packages")
    source = CHECKOUT / "inference_image/glm_tts"
    folders = [node_root(node) / "srv" for node in NODES]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was broken off
        shutil.copytree(site, folder / "torch", copy_function=os.link, symlinks=True)
        shutil.copytree(source, folder / "engine/glm_tts", copy_function=os.link)
    yield
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def weights(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """What `voicemesh models publish` says of the tiny model, by the names of its lines."""
    folder = tmp_path_factory.mktemp("glm-tts") / "published"
    module = "inference_image.tests.glm_tts.tiny_checkpoint"
    made = [str(ENGINE / "bin/python"), "-m", module, str(folder)]
    subprocess.run(made, cwd=CHECKOUT, check=True)
    storage: Any = boto3.resource(
        "s3",
        endpoint_url=STORAGE["AWS_ENDPOINT_URL_S3"],
        region_name=STORAGE["AWS_DEFAULT_REGION"],
        aws_access_key_id="local",
        aws_secret_access_key="any",
    )
    bucket = storage.create_bucket(Bucket=BUCKET)
    voicemesh = str(CHECKOUT / ".venv/bin/voicemesh")
    done = subprocess.run(
        [voicemesh, "models", "publish", str(folder), URI, "--license", "Apache-2.0"],
        env={**os.environ, **STORAGE},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield dict(re.findall(r"^  (\w+): (.+)$", done.stdout, re.MULTILINE))
    bucket.objects.delete()
    bucket.delete()


@pytest.fixture(scope="module")
def voice(
    lab: Lab,
    nodes_with_torch: None,
    weights: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:
    """The server's process, once it has spoken its first sentence."""
    stack = SmallStack(tmp_path_factory.mktemp("stack"), "glm_tts_voice.py")
    stack.init()
    try:
        said = stack.up(
            uri=weights["uri"],
            sha256=weights["sha256"],
            size_gib=weights["sizeGib"],
        )
        assert said.startswith("exit 0"), said + _logs(lab.environment)
        (pod,) = lab.ready_pods(NAMESPACE, app="glm")
        # The gateway learns of a voice a moment after its pod is ready.
        eventually(lambda: _speak(lab, SHORT).status == 200, 60, "the gateway leads there")
        yield Process(pod.metadata.name, "python")
    finally:
        stack.destroy()


def _logs(environment: Environment) -> str:
    pods = environment.core.list_namespaced_pod(NAMESPACE, label_selector="app=glm").items
    return "".join(
        environment.core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, container=name)
        for pod in pods
        for name in ("weights", "speech-server")
    )


def _asking(lab: Lab, text: str, voice: str, **fields: Any) -> Request:
    body = {"model": "glm-tts", "input": text, "voice": voice, "response_format": "pcm"}
    headers = {"content-type": "application/json"}
    content = json.dumps({**body, **fields.pop("body", {})})
    token = lab.token(tenant=NAMESPACE)
    return lab.asking(token=token, headers=headers, **{**fields, "body": content})


def _speak(lab: Lab, text: str, voice: str = "ming", **fields: Any) -> Answer:
    return lab.request(_asking(lab, text, voice, **fields), voice="glm", timeout_seconds=120)


def _spoken_seconds(voice: Process) -> float:
    """All audio that the server says it has made."""
    metrics = voice.ask(HTTP_PORT, "GET", METRICS_PATH).decode()
    lines = re.findall(rf"^{AUDIO_SECONDS_METRIC}_total(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, lines))


@pytest.mark.parametrize("name", ["ming", "ada"])
def test_a_text_becomes_audio_of_the_right_length(lab: Lab, voice: Process, name: str) -> None:
    before = _spoken_seconds(voice)
    answer = _speak(lab, SHORT, name)
    assert answer.outcome == "complete"
    assert answer.headers["content-type"].startswith("audio/pcm")
    assert answer.size % BYTES_PER_ID == 0, "audio of whole speech ids"
    # At most one text id a byte, and from 2 to 20 speech ids for each.
    assert 2 <= answer.size // BYTES_PER_ID <= 20 * len(SHORT.encode())
    made = _spoken_seconds(voice) - before
    assert made * 2 * SAMPLE_RATE_HZ == pytest.approx(answer.size), "what was made has arrived"


def test_a_wav_file_says_what_it_holds(lab: Lab, voice: Process) -> None:
    answer = _speak(lab, SHORT, body={"response_format": "wav"}, leave_after_bytes=4096)
    assert answer.headers["content-type"].startswith("audio/wav")
    with wave.open(io.BytesIO(answer.text.encode(errors="surrogateescape"))) as file:
        assert file.getframerate() == SAMPLE_RATE_HZ
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)


def test_audio_is_heard_while_it_is_made(lab: Lab, voice: Process) -> None:
    answers = [_speak(lab, LONG) for _ in range(5)]
    shares = [(it.arrivals[0][0] - it.started) / (it.ended - it.started) for it in answers]
    seconds = [it.size / 2 / SAMPLE_RATE_HZ for it in answers]
    area = "glm-tts"
    note(area, "longest of five", max(seconds), "s of audio")
    note(area, "first audio, latest share of the time", max(shares))
    assert max(shares) < 0.3
    assert all(len(it.arrivals) > 2 for it in answers)


def test_many_listen_at_once(lab: Lab, voice: Process) -> None:
    requests = [_asking(lab, SHORT, name) for name in ("ming", "ada") * 4]
    caller = lab.public("glm")
    answers = caller.load(*requests, concurrency=len(requests), timeout_seconds=120)
    assert [it.outcome for it in answers] == ["complete"] * len(requests)
    assert all(it.status == 200 and it.size % BYTES_PER_ID == 0 for it in answers)
    assert len({it.sha256 for it in answers}) > 1, "they have noises of their own"


def test_who_has_no_token_of_the_tenant_hears_nothing(lab: Lab, voice: Process) -> None:
    answer = lab.request(
        lab.asking(token=lab.token(tenant="lab-a"), body="{}"), voice="glm", timeout_seconds=60
    )
    assert answer.status == 403
