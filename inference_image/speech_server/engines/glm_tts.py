"""GLM-TTS: Chinese and English in the voice of a reference clip, on a GPU.

Its weights are in `SPEECH_MODEL_DIRECTORY`, published or bundled (`python -m glm_tts.convert`).
Its voices are there too, in `voices/`: `NAME.wav`, the reference clip, and `NAME.json`:

    {"transcript": "what is said in the clip", "language": "Chinese"}

The manner of a clip is the manner of its voice: a preset of an emotion is a clip spoken that way.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import wave
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from glm_tts.decoder import DecoderConfig
from glm_tts.engine import EngineConfig, Request, RequestError, Segment, Speaker
from glm_tts.model import Model, ModelOptions, load
from glm_tts.text import TextError
from glm_tts.voice import ClipError, VoiceCache
from speech_server.engine import (
    Cancellation,
    Engine,
    Samples,
    SpeechRequest,
    UnspeakableTextError,
    Voice,
)

_SCRIPTS = {"Chinese": "CJK", "English": "LATIN"}
_WARM_UP_TEXT = "好。 Hello."

_logger = logging.getLogger(__name__)


class VoiceFolderError(ValueError):
    """The voices cannot be read; the message has a line for each fault, with its file."""


class _Description(BaseModel):
    """`NAME.json` beside `NAME.wav`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transcript: str
    language: Literal["Chinese", "English"]


class GlmTtsEngine(Engine):
    """Many streams at once: their steps share the device, whichever of them are advanced."""

    model = "glm-tts"
    speed_range = (1.0, 1.0)

    def __init__(
        self,
        directory: Path,
        options: ModelOptions,
        config: EngineConfig,
        voice_bytes: int = 2**30,
    ) -> None:
        """
        Args:
            directory: with weights and voices.
            voice_bytes: of the voices that are kept ready.

        Raises:
            VoiceFolderError: there are no voices, or faulty ones.
        """
        self._directory, self._options, self._config = directory, options, config
        self._descriptions = _descriptions(directory / "voices")
        self._loaded: Model | None = None
        self._speakers: VoiceCache[Speaker] = VoiceCache(voice_bytes, math.inf)
        self.sample_rate_hz = self._options.sample_rate_hz
        self.parallelism = self._config.decoder.rows

    @classmethod
    def on_this_machine(
        cls,
        directory: Path,
        *,
        streams: int,
        sample_rate_hz: Literal[24000, 32000] = 24000,
        voice_bytes: int = 2**30,
    ) -> GlmTtsEngine:
        """On the first GPU, its language model in bfloat16; without one, on the CPU in float32.

        Args:
            directory: with weights and voices.
            streams: that can be made together; each takes memory of the device.
            voice_bytes: of the voices that are kept ready.
        """
        options = ModelOptions(sample_rate_hz=sample_rate_hz)
        if torch.cuda.is_available():
            options = replace(options, device="cuda", llama_dtype=torch.bfloat16)
        else:
            _logger.warning("there is no GPU: GLM-TTS speaks slower than speech on a CPU")
        config = EngineConfig(DecoderConfig(rows=streams))
        return cls(directory, options, config, voice_bytes)

    def voices(self) -> Sequence[Voice]:
        # Every voice reads both: the language is that of its clip.
        scripts = frozenset(_SCRIPTS.values())
        return [Voice(name, it.language, scripts) for name, it in self._descriptions.items()]

    def warm_up(self) -> None:
        model = load(self._directory, self._options, self._config)
        # All are made, so that faulty clips are found now; the first ones are kept.
        for name in reversed(self._descriptions):
            self._speaker(model, name)
        model.engine.record()
        model.engine.start()
        self._loaded = model
        first = SpeechRequest(_WARM_UP_TEXT, next(iter(self._descriptions)))
        if not sum(map(len, self.stream(first, Cancellation()))):
            raise RuntimeError("the model made no audio of its warm-up sentence")

    def stream(
        self, request: SpeechRequest, cancellation: Cancellation
    ) -> Generator[Samples, None, None]:
        if self._loaded is None:
            raise RuntimeError("stream was called before warm_up")
        stream = self._loaded.engine.speak(self._request(self._loaded, request))
        try:
            for chunk in stream:
                if cancellation.requested:
                    return
                yield chunk
        finally:
            stream.cancel()

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.engine.close()
            self._loaded = None

    def _speaker(self, model: Model, name: str) -> Speaker:
        """A voice that is ready, or else made of its clip."""
        transcript = self._descriptions[name].transcript

        def make() -> Speaker:
            clip, rate = _clip(self._directory / f"voices/{name}.wav")
            try:
                return model.speaker(model.voices.make(clip, rate, transcript))
            except (ClipError, TextError) as error:
                raise VoiceFolderError(f"voices/{name}: {error}") from error

        # The folder was verified and does not change: within it, a name stands for its clip.
        return self._speakers.get_or_make(name, make)

    def _request(self, model: Model, request: SpeechRequest) -> Request:
        speaker = self._speaker(model, request.voice)
        try:
            segments = tuple(map(Segment.of, model.front_end.segments(request.text)))
            asked = Request(speaker, segments, seed=secrets.randbits(31))
            model.engine.check(asked)
        except TextError as error:
            raise UnspeakableTextError(str(error), code=error.code) from error
        except RequestError as error:
            raise UnspeakableTextError(str(error), code="text_too_long") from error
        return asked


def _descriptions(folder: Path) -> dict[str, _Description]:
    """The voices of a folder, in the order of their names."""
    read, faults = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            read[path.stem] = _Description.model_validate(json.loads(path.read_text("utf-8")))
        except ValidationError as error:
            faults += [
                f"voices/{path.name}: {'.'.join(map(str, it['loc']))}: {it['msg']}"
                for it in error.errors()
            ]
        except ValueError as error:
            faults.append(f"voices/{path.name}: is no JSON in UTF-8: {error}")
        if not path.with_suffix(".wav").is_file():
            faults.append(f"voices/{path.stem}.wav: missing, {path.name} describes it")
    if not read and not faults:
        faults.append(f"{folder}: no voice: put NAME.wav and NAME.json there")
    if faults:
        raise VoiceFolderError("\n".join(faults))
    return read


def _clip(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples [channels, N] in ±1 and sample rate of a WAV file of 16 bit."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise VoiceFolderError(
                    f"voices/{path.name}: {8 * file.getsampwidth()} bit, must be 16: convert it"
                )
            content = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
            channels, rate = file.getnchannels(), file.getframerate()
    except (wave.Error, EOFError) as error:
        raise VoiceFolderError(f"voices/{path.name}: is no WAV file: {error}") from error
    samples = content.reshape(-1, channels).T.astype(np.float32)
    return samples / np.float32(32768), rate
