from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_server.audio import AudioFormat, encode_pcm16, stream_header, wav_header

SAMPLES = st.lists(st.floats(-1, 1, width=32), max_size=200)


@given(SAMPLES)
def test_pcm_decodes_to_what_was_encoded(values: list[float]) -> None:
    pcm = encode_pcm16(np.array(values, np.float32))
    decoded = np.frombuffer(pcm, "<i2") / 32767
    assert np.allclose(decoded, values, atol=0.51 / 32767)


@given(st.floats(1, 1e6, width=32))
def test_audio_that_is_too_loud_is_clipped_not_wrapped(loud: float) -> None:
    assert encode_pcm16(np.array([loud, -loud], np.float32)) == b"\xff\x7f\x01\x80"


@given(SAMPLES, st.integers(8_000, 96_000))
def test_a_wav_of_known_length_is_read_back_by_the_standard_library(
    values: list[float], sample_rate_hz: int
) -> None:
    pcm = encode_pcm16(np.array(values, np.float32))
    with wave.open(io.BytesIO(wav_header(sample_rate_hz, len(pcm)) + pcm)) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (
            sample_rate_hz,
            1,
            2,
        )
        assert wav.getnframes() == len(values)
        assert wav.readframes(wav.getnframes()) == pcm


def test_a_wav_stream_of_unknown_length_is_read_to_its_end() -> None:
    pcm = encode_pcm16(np.linspace(-1, 1, 999, dtype=np.float32))
    with wave.open(io.BytesIO(stream_header(AudioFormat.WAV, 24_000) + pcm)) as wav:
        assert wav.readframes(wav.getnframes()) == pcm


@pytest.mark.parametrize(
    ("audio_format", "header_bytes", "media_type"),
    [(AudioFormat.WAV, 44, "audio/wav"), (AudioFormat.PCM, 0, "audio/pcm")],
)
def test_each_format_has_its_header_and_media_type(
    audio_format: AudioFormat, header_bytes: int, media_type: str
) -> None:
    assert len(stream_header(audio_format, 24_000)) == header_bytes
    assert audio_format.media_type == media_type
