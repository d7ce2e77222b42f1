"""From samples to what the parts of the model that listen take in.

A reference clip is heard three times, each time in another form:

- `whisper_log_mel`, 16 kHz, for the speech tokenizer, as transformers' `WhisperFeatureExtractor`;
- `kaldi_fbank`, 16 kHz, for the speaker encoder, as Kaldi's `compute-fbank-feats`;
- `prompt_mel`, 24 or 32 kHz, for the flow, which continues it.

`resample` brings a clip to those rates. Everything is computed where the samples are; filters are
made once per configuration, on the CPU.

Shapes: B clips, N samples, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE_HZ: Final = 16_000
"""Rate at which the speech tokenizer and the speaker encoder listen."""

WHISPER_MELS: Final = 128
WHISPER_FFT: Final = 400
WHISPER_HOP: Final = 160

KALDI_MELS: Final = 80
KALDI_WINDOW: Final = 400
KALDI_HOP: Final = 160
KALDI_FFT: Final = 512
KALDI_PREEMPHASIS: Final = 0.97
KALDI_LOWEST_HZ: Final = 20.0
_KALDI_FLOOR: Final = torch.finfo(torch.float32).eps

RESAMPLE_ZERO_CROSSINGS: Final = 6
RESAMPLE_ROLLOFF: Final = 0.99


# Whisper's log-mel spectrogram


def whisper_log_mel(samples: Tensor) -> Tensor:
    """[B, N] at 16 kHz, N a multiple of 160, → [B, 128, N/160].

    A clip's quietest values are cut off 8 below its own loudest, so what is batched with it does
    not matter, but the zeros it was padded with do.
    """
    window = torch.hann_window(WHISPER_FFT, device=samples.device, dtype=samples.dtype)
    spectrum = torch.stft(samples, WHISPER_FFT, WHISPER_HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs() ** 2  # [B, 201, N/160]: the frame centred on the end is left
    mel = slaney_filters(SAMPLE_RATE_HZ, WHISPER_FFT, WHISPER_MELS, 0.0, 8000.0).to(power) @ power
    log_mel = mel.clamp(min=1e-10).log10()
    loudest = log_mel.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0


# The mel spectrogram that the flow continues


@dataclass(frozen=True)
class PromptMelConfig:
    """A mel spectrogram of 50 frames/s, the form in which a vocoder takes speech."""

    sample_rate_hz: int
    fft: int
    """Samples of a window, and of its transform."""
    hop: int
    mels: int = 80
    lowest_hz: float = 0.0
    highest_hz: float = 8000.0


PROMPT_MEL: Final = {
    24_000: PromptMelConfig(24_000, fft=1920, hop=480),
    32_000: PromptMelConfig(32_000, fft=2560, hop=640),
}
"""By the vocoder's sample rate."""


def prompt_mel(samples: Tensor, config: PromptMelConfig) -> Tensor:
    """[N] at the configuration's rate → [N // hop, 80], natural logarithm of the amplitude."""
    edge = (config.fft - config.hop) // 2
    padded = functional.pad(samples[None], (edge, edge), mode="reflect")[0]
    window = torch.hann_window(config.fft, device=samples.device, dtype=samples.dtype)
    spectrum = torch.stft(
        padded, config.fft, config.hop, window=window, center=False, return_complex=True
    )
    amplitude = torch.sqrt(torch.view_as_real(spectrum).square().sum(-1) + 1e-9)  # [fft/2 + 1, T]
    filters = slaney_filters(
        config.sample_rate_hz, config.fft, config.mels, config.lowest_hz, config.highest_hz
    )
    return (filters.to(amplitude) @ amplitude).clamp(min=1e-5).log().T.contiguous()


# Kaldi's filter-bank features


def kaldi_fbank(samples: Tensor) -> Tensor:
    """[N] at 16 kHz, in ±1, → [1 + (N - 400) // 160, 80].

    Windows of 25 ms every 10 ms that lie wholly inside the clip, without dither; each loses its
    mean and is pre-emphasised by itself, its first sample by itself too.
    """
    windows = samples.unfold(0, KALDI_WINDOW, KALDI_HOP)  # [T, 400]
    windows = windows - windows.mean(dim=1, keepdim=True)
    before = torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
    shape = torch.hann_window(
        KALDI_WINDOW, periodic=False, device=samples.device, dtype=samples.dtype
    )
    windows = (windows - KALDI_PREEMPHASIS * before) * shape.pow(0.85)  # the "povey" window
    power = torch.fft.rfft(windows, n=KALDI_FFT).abs().square()  # [T, 257]
    mel = power @ kaldi_filters().to(power).T
    return mel.clamp(min=_KALDI_FLOOR).log()


# Resampling


def resample(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """[..., N] → [..., ceil(N · to_hz / from_hz)], band-limited.

    Sinc interpolation under a Hann window of 6 zero crossings, as torchaudio's `Resample` does by
    default.
    """
    if from_hz == to_hz:
        return samples
    common = math.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    kernel, width = resample_kernel(old, new)
    N = samples.shape[-1]
    padded = functional.pad(samples.reshape(-1, 1, N), (width, width + old))
    phases = functional.conv1d(padded, kernel.to(samples), stride=old)  # [B, new, N // old + 1]
    resampled = phases.transpose(1, 2).reshape(*samples.shape[:-1], -1)
    return resampled[..., : resampled_length(N, old, new)]


def resampled_length(length: int, old: int, new: int) -> int:
    """Samples that `length` of them become when `old` turn into `new`.

    torchaudio rounds up a single-precision number, so a fraction too small for that is lost; a
    sample more could mean one more speech id.
    """
    return math.ceil(np.float32(new * length / old))


@lru_cache(maxsize=64)
def resample_kernel(old: int, new: int) -> tuple[Tensor, int]:
    """Filters [new, 1, 2·width + old], one per output phase, and the samples they reach back.

    In double precision but for the phases: so does torchaudio.
    """
    band = min(old, new) * RESAMPLE_ROLLOFF
    width = math.ceil(RESAMPLE_ZERO_CROSSINGS * old / band)
    tap = np.arange(-width, width + old) / old
    phase = -(np.arange(new, dtype=np.float32)[:, None] / np.float32(new))
    t = np.clip((phase + tap) * band, -RESAMPLE_ZERO_CROSSINGS, RESAMPLE_ZERO_CROSSINGS)
    window = np.cos(t * np.pi / RESAMPLE_ZERO_CROSSINGS / 2) ** 2
    kernel = np.sinc(t) * window * (band / old)
    return torch.from_numpy(kernel[:, None].astype(np.float32)), width


# Filter banks


@cache
def slaney_filters(
    sample_rate_hz: int, fft: int, mels: int, lowest_hz: float, highest_hz: float
) -> Tensor:
    """[mels, fft/2 + 1] triangles of equal area, spaced by Slaney's mel scale, as librosa's."""
    lowest, highest = _slaney_mel(lowest_hz), _slaney_mel(highest_hz)
    edges = _slaney_hz(torch.linspace(lowest, highest, mels + 2, dtype=torch.float64))
    bins = torch.linspace(0, sample_rate_hz / 2, fft // 2 + 1, dtype=torch.float64)
    areas = (edges[2:] - edges[:-2]) / 2.0
    return (_triangles(bins, edges) / areas[:, None]).float()


@cache
def kaldi_filters() -> Tensor:
    """[80, 257] triangles of equal height in the mel domain, from 20 Hz to half the rate.

    In single precision, as torchaudio's: the narrowest triangles feel the difference.
    """
    nyquist = SAMPLE_RATE_HZ / 2
    lowest, highest = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (KALDI_LOWEST_HZ, nyquist))
    edges = lowest + torch.arange(KALDI_MELS + 2) * ((highest - lowest) / (KALDI_MELS + 1))
    hz = torch.arange(KALDI_FFT // 2 + 1) * (SAMPLE_RATE_HZ / KALDI_FFT)
    return _triangles(1127.0 * (1.0 + hz / 700.0).log(), edges)


def _triangles(at: Tensor, edges: Tensor) -> Tensor:
    """[len(edges) - 2, len(at)]: each from 0 at one edge to 1 at the next and 0 at the third."""
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - left) / (centre - left), (right - at) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


_LINEAR_UP_TO_HZ: Final = 1000.0
_HZ_PER_MEL: Final = 200.0 / 3
_LOG_STEP: Final = math.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    """Linear up to 1 kHz, 27 mels per factor 6.4 above."""
    if hz < _LINEAR_UP_TO_HZ:
        return hz / _HZ_PER_MEL
    return _LINEAR_UP_TO_HZ / _HZ_PER_MEL + math.log(hz / _LINEAR_UP_TO_HZ) / _LOG_STEP


def _slaney_hz(mel: Tensor) -> Tensor:
    above = mel - _LINEAR_UP_TO_HZ / _HZ_PER_MEL
    return torch.where(above < 0, mel * _HZ_PER_MEL, _LINEAR_UP_TO_HZ * (above * _LOG_STEP).exp())
