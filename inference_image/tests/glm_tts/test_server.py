"""The server with a tiny GLM-TTS, from a checkpoint in the published layout to audio over HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from glm_tts.blocks import Blocks
from glm_tts.checkpoint import CheckpointError
from glm_tts.convert import convert
from glm_tts.decoder import DecoderConfig
from glm_tts.engine import EngineConfig
from glm_tts.model import Model, ModelOptions, load
from inference_image.tests.glm_tts.tiny_checkpoint import VOICES, write_checkpoint
from inference_image.tests.scripted import RunningServer, eventually
from speech_server.engine import Cancellation, SpeechRequest, UnspeakableTextError
from speech_server.engines.glm_tts import GlmTtsEngine, VoiceFolderError
from speech_server.settings import Settings

CONFIG = EngineConfig(DecoderConfig(rows=4, length=6144), Blocks((6, 9, 14)))
BYTES_PER_FRAME = 2 * 480
FRAMES_PER_ID = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "published")


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> GlmTtsEngine:
    return GlmTtsEngine(checkpoint, ModelOptions(), CONFIG)


@pytest.fixture(scope="module")
def server(engine: GlmTtsEngine) -> Iterator[RunningServer]:
    with RunningServer(Settings(), engine) as server:
        eventually(lambda: httpx.get(f"{server.url}/readyz").is_success, "the server is ready")
        yield server


def _body(text: str, **others: object) -> dict[str, object]:
    return {"model": "glm-tts", "input": text, "voice": "ming", "response_format": "pcm", **others}


def _speech(server: RunningServer, text: str, **others: object) -> httpx.Response:
    url = f"{server.url}/v1/audio/speech"
    return httpx.post(url, json=_body(text, **others), timeout=60)


@pytest.mark.parametrize("text", ["你好，中国。", "Hello over there.", "今天 meeting 很好。"])
def test_a_text_becomes_audio_of_a_length_that_its_ids_allow(
    server: RunningServer, text: str
) -> None:
    audio = _speech(server, text).raise_for_status().content
    frames = len(audio) / BYTES_PER_FRAME
    assert frames == int(frames)
    ids = 2 * len(text.encode())  # at most one text id a byte
    assert 2 * FRAMES_PER_ID <= frames <= 20 * FRAMES_PER_ID * ids
    assert np.abs(np.frombuffer(audio, "<i2")).max() > 300, "it is heard"


def test_audio_streams_while_it_is_made(server: RunningServer) -> None:
    url, text = f"{server.url}/v1/audio/speech", "人果你好。"
    with httpx.stream("POST", url, json=_body(text), timeout=60) as response:
        response.raise_for_status()
        pieces = [len(piece) for piece in response.iter_raw()]
    assert len(pieces) > 2
    first_block = (6 - 6 // 2) * FRAMES_PER_ID * BYTES_PER_FRAME
    assert pieces[0] < first_block, "a part of the first block has come by itself"


def test_the_stock_client_speaks_with_every_voice_at_once(server: RunningServer) -> None:
    client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1")
    lengths: list[int] = []

    def speak(voice: str) -> None:
        made = client.audio.speech.create(
            model="glm-tts", voice=voice, input="你好。", response_format="wav"
        )
        lengths.append(len(made.content))

    threads = [threading.Thread(target=speak, args=(name,)) for name in [*VOICES] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == 8
    assert min(lengths) > 44


def test_a_text_that_cannot_be_spoken_is_refused_with_its_reason(server: RunningServer) -> None:
    answer = _speech(server, "你好<|NOSUCH|>。")
    assert answer.status_code == 400
    assert "NOSUCH" in answer.json()["error"]["message"]
    faster = _speech(server, "你好。", speed=1.5)
    assert faster.status_code == 400
    assert "speed" in faster.json()["error"]["message"]


def test_phonemes_may_be_written_into_the_text(server: RunningServer) -> None:
    _speech(server, "人<|SH|><|EN1|>果。").raise_for_status()


def test_a_listener_who_leaves_takes_no_row_any_longer(
    server: RunningServer, engine: GlmTtsEngine
) -> None:
    url, text = f"{server.url}/v1/audio/speech", "人果你好我是的他在有了。"
    with httpx.stream("POST", url, json=_body(text), timeout=60) as response:
        next(response.iter_raw())
    assert engine._loaded
    decoder = engine._loaded.engine.decoder
    eventually(lambda: decoder.active == 0, "its row is free")


def test_a_bundle_speaks_as_the_published_checkpoint_does(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "bundle", None)
    prompts = []
    for folder in (checkpoint, tmp_path / "bundle"):
        model = load(folder, ModelOptions(), CONFIG)
        ids = model.front_end.segments("你好。")[0]
        time = np.arange(24_000)
        clip = np.sin(time / 20) * (0.2 + 0.1 * np.sin(time / 1000))
        voice = model.voices.make(clip.astype(np.float32), 24_000, "你好。")
        prompts.append((ids, voice.speech_ids.tolist(), voice.speaker.tolist()))
    assert prompts[0] == prompts[1]


def test_what_is_missing_from_a_checkpoint_is_named_whole(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "broken")
    (tmp_path / "broken/frontend/campplus.onnx").unlink()
    (tmp_path / "broken/hift/hift.pt").unlink()
    with pytest.raises(CheckpointError) as refusal:
        load(tmp_path / "broken", ModelOptions(), CONFIG)
    assert "frontend/campplus.onnx" in str(refusal.value)
    assert "hift/hift.pt" in str(refusal.value)


def test_voices_that_cannot_be_read_are_all_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    with pytest.raises(VoiceFolderError, match=r"no voice: put NAME\.wav and NAME\.json there"):
        GlmTtsEngine(tmp_path, ModelOptions(), CONFIG)
    shutil.copy(checkpoint / "voices/ming.wav", tmp_path / "voices")
    (tmp_path / "voices/ming.json").write_text(json.dumps({"transcript": "a", "language": "Latin"}))
    (tmp_path / "voices/ada.json").write_text("no")
    with pytest.raises(VoiceFolderError) as refusal:
        GlmTtsEngine(tmp_path, ModelOptions(), CONFIG)
    lines = str(refusal.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "voices/ada.json",
        "voices/ada.wav",
        "voices/ming.json",
    ]
    assert "'Chinese' or 'English'" in lines[2]


def test_voices_that_find_no_room_are_made_again_when_they_are_asked_for(
    checkpoint: Path, engine: GlmTtsEngine, server: object
) -> None:
    one = max(engine._speaker(_loaded(engine), name).bytes for name in VOICES)
    small = GlmTtsEngine(checkpoint, ModelOptions(), CONFIG, voice_bytes=one)
    small.warm_up()
    model = _loaded(small)
    first, other = (it.name for it in small.voices())
    kept = small._speaker(model, first)
    assert small._speaker(model, first) is kept, "the first voice is ready"
    spoken = list(small.stream(SpeechRequest("你好。", other), Cancellation()))
    assert sum(map(len, spoken)) > 0
    assert len(small._speakers) == 1
    again = small._speaker(model, first)
    assert again is not kept
    assert again.speech_ids == kept.speech_ids
    small.close()


def _loaded(engine: GlmTtsEngine) -> Model:
    assert engine._loaded
    return engine._loaded


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_it_speaks_at_32_khz_with_the_other_vocoder(checkpoint: Path) -> None:
    engine = GlmTtsEngine.on_this_machine(checkpoint, streams=2, sample_rate_hz=32_000)
    engine.warm_up()
    assert engine.sample_rate_hz == 32_000
    assert engine.parallelism == 2
    chunks = list(engine.stream(SpeechRequest("你好。", "ming"), Cancellation()))
    samples = sum(map(len, chunks))
    assert samples % (FRAMES_PER_ID * 640) == 0
    assert samples > 0
    engine.close()


def test_torchs_compiler_is_not_loaded(checkpoint: Path) -> None:
    """It takes seconds, and fails where the user has no name, as in a pod."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from speech_server.engine import Cancellation, SpeechRequest\n"
        "from speech_server.engines.glm_tts import GlmTtsEngine\n"
        "engine = GlmTtsEngine.on_this_machine(Path(sys.argv[1]), streams=2)\n"
        "engine.warm_up()\n"
        "engine.close()\n"
        "print(*[name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules])\n"
    )
    argv = [sys.executable, "-c", program, str(checkpoint)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_segment_longer_than_the_cache_is_refused(engine: GlmTtsEngine, server: object) -> None:
    small = GlmTtsEngine(engine._directory, ModelOptions(), EngineConfig(DecoderConfig(length=200)))
    small.warm_up()
    with pytest.raises(UnspeakableTextError, match="use shorter segments") as refusal:
        next(small.stream(SpeechRequest("人果你好我是的他在有了", "ming"), Cancellation()))
    assert refusal.value.code == "text_too_long"
    small.close()
