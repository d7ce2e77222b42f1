"""Sample and container formats."""

from __future__ import annotations

import struct
from enum import StrEnum

import numpy as np

from speech_server.engine import Samples

BYTES_PER_SAMPLE = 2
_CHANNELS = 1
_FULL_SCALE = 32767
_PCM_FORMAT_TAG = 1
# ffmpeg and OpenAI's own service write this size where the length is not known yet; players and
# decoders read on to the end of the stream.
_UNKNOWN_SIZE = 0xFFFFFFFF


class AudioFormat(StrEnum):
    """What is served. Both are 16-bit little-endian mono at the engine's sample rate."""

    WAV = "wav"
    PCM = "pcm"

    @property
    def media_type(self) -> str:
        return f"audio/{self.value}"


def encode_pcm16(samples: Samples) -> bytes:
    """Samples in [-1, 1] as signed 16-bit little-endian; louder ones are clipped."""
    return (np.clip(samples, -1.0, 1.0) * _FULL_SCALE).round().astype("<i2").tobytes()


def stream_header(audio_format: AudioFormat, sample_rate_hz: int) -> bytes:
    """The bytes before the first sample of a stream whose length is not known."""
    return wav_header(sample_rate_hz) if audio_format is AudioFormat.WAV else b""


def wav_header(sample_rate_hz: int, data_bytes: int | None = None) -> bytes:
    """A 44-byte RIFF header; without `data_bytes`, both sizes say "unknown"."""
    frame_bytes = _CHANNELS * BYTES_PER_SAMPLE
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        _UNKNOWN_SIZE if data_bytes is None else data_bytes + 36,
        b"WAVE",
        b"fmt ",
        16,
        _PCM_FORMAT_TAG,
        _CHANNELS,
        sample_rate_hz,
        sample_rate_hz * frame_bytes,
        frame_bytes,
        8 * BYTES_PER_SAMPLE,
        b"data",
        _UNKNOWN_SIZE if data_bytes is None else data_bytes,
    )
