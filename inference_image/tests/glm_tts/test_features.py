"""Features equal those of the libraries that the model was trained with."""

from __future__ import annotations

import math
from types import ModuleType

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import WhisperFeatureExtractor

from glm_tts import features
from glm_tts.features import PROMPT_MEL, PromptMelConfig


@pytest.fixture(scope="module")
def torchaudio() -> ModuleType:
    """What is used of it is pure Python, so it may be built for another CUDA than torch is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.version, "cuda", None)
        import torchaudio
        import torchaudio.compliance.kaldi
    return torchaudio


def speech(samples: int, rate: int = 16_000, seed: int = 0) -> Tensor:
    """A gliding, swelling tone with overtones over noise, in ±1, never silent."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / rate
    phase = 2 * math.pi * (140 * t + 40 * torch.sin(3 * t))
    tone = sum(torch.sin(k * phase) / k for k in range(1, 30)) * (0.6 + 0.4 * torch.sin(9 * t))
    return 0.2 * tone + 0.02 * torch.randn(samples, generator=generator)


# Whisper


def reference_log_mel(clips: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    extractor = WhisperFeatureExtractor(feature_size=features.WHISPER_MELS)
    made = extractor(
        clips,
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
        padding="longest",
        pad_to_multiple_of=640,
    )
    return made["input_features"], made["attention_mask"]


@given(st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=15, deadline=None)
def test_the_log_mel_is_whispers(first: int, second: int) -> None:
    clips = [speech(first), 0.1 * speech(second, seed=1)]
    width = -(-max(first, second) // 640) * 640
    padded = torch.stack([torch.nn.functional.pad(it, (0, width - len(it))) for it in clips])
    expected, _ = reference_log_mel([it.numpy() for it in clips])
    torch.testing.assert_close(features.whisper_log_mel(padded), expected, atol=1e-5, rtol=0)


def test_the_loudest_of_a_batch_does_not_cut_off_the_others() -> None:
    loud, quiet = speech(6400), 1e-4 * speech(6400, seed=1)
    together = features.whisper_log_mel(torch.stack([loud, quiet]))
    alone = features.whisper_log_mel(quiet[None])
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)
    assert (together.amax(dim=(1, 2)) - together.amin(dim=(1, 2)) <= 2 + 1e-6).all()
    cut_by_all = torch.maximum(together, together.max() - 2)
    assert (cut_by_all[1] - alone[0]).abs().max() > 0.1


# The prompt's mel


def slow_prompt_mel(samples: np.ndarray, config: PromptMelConfig) -> np.ndarray:
    """Frame by frame, with librosa's filters."""
    n, hop = config.fft, config.hop
    padded = np.pad(samples.astype(np.float64), (n - hop) // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    filters = librosa.filters.mel(
        sr=config.sample_rate_hz, n_fft=n, n_mels=80, fmin=0, fmax=8000
    ).astype(np.float64)
    frames = []
    for start in range(0, len(padded) - n + 1, hop):
        spectrum = np.fft.rfft(window * padded[start : start + n])
        amplitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        frames.append(np.log(np.maximum(filters @ amplitude, 1e-5)))
    return np.array(frames)


@pytest.mark.parametrize("rate", [24_000, 32_000])
def test_the_prompt_mel_is_that_of_a_slow_loop(rate: int) -> None:
    samples = speech(rate // 4 + 77, rate)
    samples[1000:4500] = 0  # log of next to nothing
    expected = slow_prompt_mel(samples.numpy(), PROMPT_MEL[rate])
    mel = features.prompt_mel(samples, PROMPT_MEL[rate])
    # A logarithm makes much of what single precision leaves where there is next to nothing.
    np.testing.assert_allclose(np.exp(mel.numpy()), np.exp(expected), atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(mel.numpy(), expected, atol=2e-4, rtol=0)
    without = features.prompt_mel(speech(rate // 4, rate), PROMPT_MEL[rate]).numpy()
    whole = slow_prompt_mel(speech(rate // 4, rate).numpy(), PROMPT_MEL[rate])
    np.testing.assert_allclose(without, whole, atol=1e-5, rtol=0)


def test_both_rates_work_in_one_process_in_any_order() -> None:
    """A cache that forgets part of what a filter bank depends on hands out the other rate's."""
    samples = {rate: speech(rate, rate) for rate in PROMPT_MEL}
    first = {rate: features.prompt_mel(samples[rate], PROMPT_MEL[rate]) for rate in PROMPT_MEL}
    for rate in reversed(PROMPT_MEL):
        again = features.prompt_mel(samples[rate], PROMPT_MEL[rate])
        assert torch.equal(again, first[rate])
        assert again.shape == (50, 80)
    shapes = {
        features.slaney_filters(r, c.fft, 80, 0.0, 8000.0).shape for r, c in PROMPT_MEL.items()
    }
    assert shapes == {(80, 961), (80, 1281)}


@given(st.integers(2000, 9000), st.sampled_from([24_000, 32_000]))
@settings(max_examples=20, deadline=None)
def test_the_prompt_has_a_frame_per_whole_hop(samples: int, rate: int) -> None:
    config = PROMPT_MEL[rate]
    assert features.prompt_mel(speech(samples, rate), config).shape == (samples // config.hop, 80)


@pytest.mark.parametrize(
    ("rate", "fft", "mels"), [(16_000, 400, 128), (24_000, 1920, 80), (32_000, 2560, 80)]
)
def test_slaney_filters_are_librosas(rate: int, fft: int, mels: int) -> None:
    expected = librosa.filters.mel(sr=rate, n_fft=fft, n_mels=mels, fmin=0, fmax=8000)
    filters = features.slaney_filters(rate, fft, mels, 0.0, 8000.0)
    np.testing.assert_allclose(filters.numpy(), expected, atol=1e-8, rtol=1e-5)
    mel_scale_of_speech_recognition = librosa.filters.mel(
        sr=rate, n_fft=fft, n_mels=40, fmin=0, fmax=8000, htk=True
    )
    ours = features.slaney_filters(rate, fft, 40, 0.0, 8000.0).numpy()
    assert np.abs(ours - mel_scale_of_speech_recognition).max() > 1e-3


# Kaldi


@given(st.integers(400, 9000), st.floats(1e-4, 1.0))
@settings(max_examples=15, deadline=None)
def test_the_filter_bank_features_are_kaldis(
    torchaudio: ModuleType, samples: int, gain: float
) -> None:
    clip = gain * speech(samples)
    expected = torchaudio.compliance.kaldi.fbank(
        clip[None], num_mel_bins=80, dither=0, sample_frequency=16_000
    )
    assert expected.shape == (1 + (samples - 400) // 160, 80)
    torch.testing.assert_close(features.kaldi_fbank(clip), expected, atol=1e-5, rtol=1e-5)


def test_digital_silence_has_kaldis_floor(torchaudio: ModuleType) -> None:
    expected = torchaudio.compliance.kaldi.fbank(torch.zeros(1, 800), num_mel_bins=80, dither=0)
    assert torch.equal(features.kaldi_fbank(torch.zeros(800)), expected)


def test_windows_are_pre_emphasised_one_by_one() -> None:
    """Pre-emphasis of the whole clip, as most front ends do it, is something else."""
    clip = speech(4000)
    emphasised = torch.cat([clip[:1], clip[1:] - 0.97 * clip[:-1]])
    windows = emphasised.unfold(0, 400, 160)
    window = torch.hann_window(400, periodic=False).pow(0.85)
    power = torch.fft.rfft((windows - windows.mean(1, keepdim=True)) * window, n=512).abs().square()
    usual = (power @ features.kaldi_filters().T).log()
    assert (features.kaldi_fbank(clip) - usual).abs().max() > 1e-3


# Resampling

RATES = [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


@pytest.mark.parametrize("to_hz", [16_000, 24_000, 32_000])
@pytest.mark.parametrize("from_hz", RATES)
def test_resampling_is_torchaudios(torchaudio: ModuleType, from_hz: int, to_hz: int) -> None:
    samples = speech(2 * 1111, from_hz).view(2, 1111)
    resampled = features.resample(samples, from_hz, to_hz)
    transform = torchaudio.transforms.Resample(from_hz, to_hz)(samples)
    torch.testing.assert_close(resampled, transform, atol=1e-6, rtol=0)
    function = torchaudio.functional.resample(samples, from_hz, to_hz)
    torch.testing.assert_close(resampled, function, atol=1e-4, rtol=0)  # a coarser kernel


@given(st.integers(1, 4000), st.sampled_from(RATES), st.sampled_from([16_000, 24_000, 32_000]))
@settings(max_examples=30, deadline=None)
def test_resampling_gives_as_many_samples_as_torchaudio(
    torchaudio: ModuleType, samples: int, from_hz: int, to_hz: int
) -> None:
    expected = torchaudio.functional.resample(torch.zeros(samples), from_hz, to_hz)
    assert features.resample(torch.zeros(samples), from_hz, to_hz).shape == expected.shape


def test_a_fraction_of_a_sample_is_lost_as_in_torchaudio() -> None:
    """30 s and a bit at 44.1 kHz: 480000.0023 samples, which single precision does not tell."""
    length = next(n for n in range(1_300_000, 1_323_000) if n * 160 % 441 == 1)
    assert features.resampled_length(length, 441, 160) == length * 160 // 441
    assert math.ceil(length * 160 / 441) == length * 160 // 441 + 1
    short = next(n for n in range(1000, 2000) if n * 160 % 441 == 1)
    assert features.resampled_length(short, 441, 160) == short * 160 // 441 + 1


def test_a_tone_keeps_its_pitch_and_what_would_alias_is_gone() -> None:
    t = np.arange(44_100) / 44_100
    for hz, level in [(1000, 0.5), (15_000, 0.0)]:
        tone = torch.from_numpy(np.sin(2 * np.pi * hz * t)).float()
        resampled = features.resample(tone, 44_100, 16_000)[200:-200].numpy()
        expected = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)[200:-200]
        loudness = np.sqrt(np.mean(resampled**2))
        assert loudness == pytest.approx(np.sqrt(level), abs=5e-3)
        if level:
            np.testing.assert_allclose(resampled, expected, atol=5e-3)
