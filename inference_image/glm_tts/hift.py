"""HiFT, the 24 kHz vocoder: a neural source filter whose last step is an inverse STFT.

In reading order: pitch from the mel, a source of harmonics and noise at that pitch, residual
blocks, and the generator that shapes the source with the mel. Parameters have the names of the
published checkpoint, `hift/hift.pt`.

Shapes are named B rows, T frames (50 per second), L = 480 T samples, M = 120 T + 1 STFT frames.

Rows of a batch may differ in length. Each convolution then sees zeros beyond a row's end, and the
STFTs end where the row ends, so that a batch gives what each row would give alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

SNAKE_EPS: Final = 1e-9
LAST_LEAKY_SLOPE: Final = 0.01


@dataclass(frozen=True)
class HiFTConfig:
    """Sizes of the vocoder. The defaults are those of the published one, which has no file."""

    mel_bins: int = 80
    sample_rate_hz: int = 24_000
    channels: int = 512
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    source_resblock_kernels: tuple[int, ...] = (7, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    fft_samples: int = 16
    fft_hop_samples: int = 4
    pitch_channels: int = 512
    harmonics: int = 8
    """Overtones beside the fundamental."""
    sine_amplitude: float = 0.1
    voiced_noise: float = 0.003
    """Deviation of the noise that is added to a voiced source."""
    voiced_above_hz: float = 10.0
    leaky_slope: float = 0.1
    magnitude_limit: float = 100.0
    audio_limit: float = 0.99

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsample_rates) * self.fft_hop_samples

    @property
    def spectrum_channels(self) -> int:
        """Real and imaginary parts, or magnitudes and phases, of one STFT frame."""
        return self.fft_samples + 2


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` [B, C, size] with zeros beyond each row's end, by a mask [B, 1, size] or none."""
    return x if mask is None else x * mask


def end_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """[B, 1, size]: true before each row's end. Without lengths nothing is to be masked."""
    if lengths is None:
        return None
    return torch.arange(size, device=lengths.device)[None, None] < lengths[:, None, None]


class Conv(nn.Conv1d):
    """A convolution of a sequence [B, C, size], as one of images that are one pixel high.

    For images, torch has kernels for channels that lie beside each other in memory, which on a CPU
    take up to half the time; for sequences it has not. So all sequences here are views of
    [B, size, C], which every operation in between preserves.
    """

    def forward(self, input: Tensor) -> Tensor:
        image, weight = input.unsqueeze(2), self.weight.unsqueeze(2)  # [B, C, 1, size]
        padding = (0, *cast(tuple[int], self.padding))
        dilation = (1, *self.dilation)
        return F.conv2d(image, weight, self.bias, (1, *self.stride), padding, dilation).squeeze(2)


class TransposedConv(nn.ConvTranspose1d):
    """As `Conv`, from a low rate to a higher one."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        del output_size  # lengths are always the rate's multiple
        image, weight = input.unsqueeze(2), self.weight.unsqueeze(2)  # [B, C, 1, size]
        padding = (0, *cast(tuple[int], self.padding))
        stride = (1, *self.stride)
        return F.conv_transpose2d(image, weight, self.bias, stride, padding).squeeze(2)


def _same_conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel - 1) // 2
    return weight_norm(Conv(inputs, outputs, kernel, padding=padding, dilation=dilation))


class PitchPredictor(nn.Module):
    """Mel [B, 80, T] -> fundamental frequency in Hz, [B, T]."""

    LAYERS: Final = 5

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(self.LAYERS):
            inputs = config.pitch_channels if index else config.mel_bins
            layers += [_same_conv(inputs, config.pitch_channels, kernel=3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.pitch_channels, 1)

    def forward(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        x = mel
        for layer in self.condnet:
            x = layer(masked(x, mask)) if isinstance(layer, nn.Conv1d) else layer(x)
        hertz = self.classifier(x.transpose(1, 2)).squeeze(-1).abs()  # [B, T]
        return hertz if mask is None else hertz * mask[:, 0]


class Source(nn.Module):
    """Pitch -> the excitation: sines at the pitch and its harmonics, and noise.

    The published code stretches the pitch to samples, averages radians per sample back to frames,
    adds them up and stretches the phase linearly. Stretching by repetition and averaging back
    changes nothing, so the sums are made of frames here. By the same way back, its random initial
    phases are never read; they are drawn nevertheless, to leave the generator where it was left.
    """

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.harmonics + 1, 1)

    def draw_noise(
        self, rows: int, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """[B, L, harmonics + 1], drawn in the order in which the published code draws.

        There the noise takes the memory order of the sines, which is one harmonic after the other.
        """
        device, sines = self.l_linear.weight.device, self.config.harmonics + 1
        torch.rand(rows, sines, generator=generator, device=device)  # initial phases
        noise = torch.empty(rows, sines, samples, device=device).transpose(1, 2)
        noise.normal_(generator=generator)
        torch.randn(rows, samples, 1, generator=generator, device=device)  # a branch not used
        return noise

    def forward(self, hertz: Tensor, noise: Tensor) -> Tensor:
        """[B, T] in Hz and [B, L, harmonics + 1] of deviation 1 -> [B, L]."""
        config, scale = self.config, self.config.samples_per_frame
        voiced = (hertz > config.voiced_above_hz).to(hertz.dtype)
        voiced = voiced.repeat_interleave(scale, dim=1)[..., None]  # [B, L, 1]
        deviation = voiced * config.voiced_noise + (1 - voiced) * config.sine_amplitude / 3
        sines = torch.sin(self.phases(hertz)).transpose(1, 2) * config.sine_amplitude
        return torch.tanh(self.l_linear(sines * voiced + deviation * noise)).squeeze(-1)

    def phases(self, hertz: Tensor) -> Tensor:
        """[B, T] in Hz -> radians of the fundamental and its harmonics, [B, harmonics + 1, L]."""
        scale = self.config.samples_per_frame
        multiples = torch.arange(1, self.config.harmonics + 2, device=hertz.device)
        cycles = (hertz[:, None] * multiples[:, None] / self.config.sample_rate_hz) % 1
        radians = cycles.cumsum(dim=-1) * 2 * math.pi * scale  # [B, harmonics + 1, T]
        return F.interpolate(radians, scale_factor=scale, mode="linear")


class Snake(nn.Module):
    """x + sin²(alpha x) / alpha, a periodic activation. Zero stays zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.folded: Tensor | None
        self.register_buffer("folded", None, persistent=False)

    def fold(self) -> None:
        self.folded = self._reciprocal()

    def forward(self, x: Tensor) -> Tensor:
        reciprocal = self._reciprocal() if self.folded is None else self.folded
        return torch.addcmul(x, (x * self.alpha[:, None]).sin_().square_(), reciprocal)

    def _reciprocal(self) -> Tensor:
        return 1 / (self.alpha + SNAKE_EPS)[:, None]  # [C, 1]


class ResBlock(nn.Module):
    """Residual pairs of a dilated and a plain convolution, [B, C, size] -> [B, C, size]."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same_conv(channels, channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(_same_conv(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x` is zero beyond its rows' ends already, and so is what returns."""
        parts = (self.activations1, self.convs1, self.activations2, self.convs2)
        for activation1, conv1, activation2, conv2 in zip(*parts, strict=True):
            y = masked(conv1(activation1(x)), mask)
            x = masked(conv2(activation2(y)), mask) + x
        return x


class ShortTimeFourier(nn.Module):
    """The STFT of 16 samples and its inverse, as products with a windowed Fourier basis.

    They equal `torch.stft` and `torch.istft` with centred frames, and unlike these they can end
    each row of a batch at its own length.
    """

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.size, self.hop = config.fft_samples, config.fft_hop_samples
        forward, inverse, window = _fourier_bases(self.size)
        self.forward_basis: Tensor
        self.inverse_basis: Tensor
        self.squared_window: Tensor
        self.register_buffer("forward_basis", forward.T.contiguous(), persistent=False)  # [16, 18]
        self.register_buffer("inverse_basis", inverse[:, None], persistent=False)  # [18, 1, 16]
        self.register_buffer("squared_window", window.square()[None, None], persistent=False)

    def forward(self, audio: Tensor, lengths: Tensor | None) -> Tensor:
        """[B, L] -> real parts, then imaginary ones, [B, 18, L / hop + 1]; ends are reflected."""
        size, padding = audio.shape[1], self.size // 2
        if lengths is None:
            audio = F.pad(audio[:, None], (padding, padding), mode="reflect").squeeze(1)
        else:
            audio = _reflected(audio, lengths, padding)
        frames = audio.unfold(1, self.size, self.hop)  # [B, M, 16]
        spectrum = (frames @ self.forward_basis).transpose(1, 2)
        ends = None if lengths is None else lengths // self.hop + 1
        return masked(spectrum, end_mask(ends, size // self.hop + 1))

    def inverse(self, spectrum: Tensor, lengths: Tensor | None) -> Tensor:
        """[B, 18, M] -> [B, (M - 1) hop], by overlapping, adding and dividing by the window."""
        mask = end_mask(None if lengths is None else lengths // self.hop + 1, spectrum.shape[2])
        ones = spectrum.new_ones(1, 1, spectrum.shape[2]) if mask is None else mask.float()
        audio = self._overlap_add(masked(spectrum, mask), self.inverse_basis)
        envelope = self._overlap_add(ones, self.squared_window)
        audio = audio / envelope.clamp_min(1e-8)  # zero beyond a row's end
        return masked(audio, end_mask(lengths, audio.shape[2])).squeeze(1)

    def _overlap_add(self, frames: Tensor, basis: Tensor) -> Tensor:
        padding = self.size // 2
        return F.conv_transpose1d(frames, basis, stride=self.hop, padding=padding)


def _fourier_bases(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bases [size + 2, size] of the windowed Fourier transform and of its inverse; the window."""
    default = torch.get_default_device()
    # They are in no checkpoint, so a model that is first built without weights needs them still.
    device = torch.device("cpu") if default.type == "meta" else default
    window = torch.hann_window(size, dtype=torch.float64, device=device)
    bins = torch.arange(size // 2 + 1, device=device)
    # Modulo the size, so that sines of whole turns are zero and not nearly zero.
    turns = bins[:, None] * torch.arange(size, device=device) % size
    angles = turns.double() * (2 * math.pi / size)
    cosines, sines = angles.cos(), -angles.sin()
    # Real audio has each bin twice, but for the first and the last, which have no sine.
    sines[[0, -1]] = 0
    weights = torch.full((len(bins), 1), 2 / size, dtype=torch.float64, device=device)
    weights[[0, -1]] = 1 / size
    forward = torch.cat((cosines, sines)) * window
    inverse = torch.cat((cosines * weights, sines * weights)) * window
    return forward.float(), inverse.float(), window.float()


def _reflected(audio: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """[B, L] -> [B, L + 2 padding], mirrored at the start and at each row's own end."""
    size = audio.shape[1]
    index = torch.arange(-padding, size + padding, device=audio.device).abs()[None]
    last = lengths[:, None] - 1
    return audio.gather(1, torch.where(index <= last, index, 2 * last - index).clamp(0, size - 1))


class HiFT(nn.Module):
    """The generator, and with it the whole vocoder."""

    def __init__(self, config: HiFTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HiFTConfig()
        halves = [config.channels // 2**n for n in range(len(config.upsample_rates) + 1)]
        self.f0_predictor = PitchPredictor(config)
        self.m_source = Source(config)
        self.conv_pre = _same_conv(config.mel_bins, halves[0], kernel=7)
        self.ups = nn.ModuleList(
            weight_norm(TransposedConv(*pair, kernel, rate, padding=(kernel - rate) // 2))
            for pair, kernel, rate in zip(
                pairwise(halves),
                config.upsample_kernels,
                config.upsample_rates,
                strict=True,
            )
        )
        self.source_downs = nn.ModuleList(
            _source_down(config.spectrum_channels, channels, math.prod(config.upsample_rates[n:]))
            for n, channels in enumerate(halves[1:], start=1)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(channels, kernel, config.dilations)
            for channels, kernel in zip(halves[1:], config.source_resblock_kernels, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(channels, kernel, config.dilations)
            for channels in halves[1:]
            for kernel in config.resblock_kernels
        )
        self.conv_post = _same_conv(halves[-1], config.spectrum_channels, kernel=7)
        self.fourier = ShortTimeFourier(config)

    @property
    def sample_rate_hz(self) -> int:
        return self.config.sample_rate_hz

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    @torch.no_grad()
    def fold(self) -> None:
        """Compute what follows from weights alone, for good: the state dict changes its names."""
        for module in list(self.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
            if isinstance(module, Conv | TransposedConv):
                image = module.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
                module.weight.data = image.squeeze(2)
            if isinstance(module, Snake):
                module.fold()

    @torch.no_grad()
    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """mel [B, T, 80] -> audio [B, L], with noise in the published order. See `Vocoder`."""
        samples = mel.shape[1] * self.samples_per_frame
        noise = self.m_source.draw_noise(len(mel), samples, generator)
        return self.decode(mel, self.source(mel, noise, lengths), lengths)

    @torch.no_grad()
    def source(self, mel: Tensor, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The excitation of a mel, [B, L].

        A mel that grows, with noise that is the same at each sample, has a source that grows: the
        phase adds up from the beginning.

        Args:
            mel: [B, T, 80].
            noise: of `Source.draw_noise`, [B, L, harmonics + 1].
            lengths: frames of each row, [B].
        """
        mask = end_mask(lengths, mel.shape[1])
        return self.m_source(self.f0_predictor(mel.transpose(1, 2), mask), noise)

    @torch.no_grad()
    def decode(self, mel: Tensor, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel [B, T, 80] and source [B, L] -> audio [B, L]."""
        config = self.config
        samples = None if lengths is None else lengths * self.samples_per_frame
        spectrum = self.fourier(source, samples)  # [B, 18, M]
        x = self.conv_pre(masked(mel.transpose(1, 2), end_mask(lengths, mel.shape[1])))
        for stage in range(len(self.ups)):
            x, lengths = self._stage(stage, x, spectrum, lengths)
        x = self.conv_post(F.leaky_relu(x, LAST_LEAKY_SLOPE))
        logarithm, angle = x.split(config.fft_samples // 2 + 1, dim=1)
        magnitude = logarithm.exp().clamp(max=config.magnitude_limit)
        phase = angle.sin()
        spectrum = torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=1)
        audio = self.fourier.inverse(spectrum, samples)
        return audio.clamp(-config.audio_limit, config.audio_limit)

    def _stage(
        self, stage: int, x: Tensor, spectrum: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Lengthen x [B, C, size] to [B, C / 2, rate * size], join the source, and refine."""
        config = self.config
        rate = config.upsample_rates[stage]
        x = masked(x, end_mask(lengths, x.shape[2]))
        x = self.ups[stage](F.leaky_relu(x, config.leaky_slope))
        lengths = None if lengths is None else lengths * rate
        if stage == len(self.ups) - 1:
            x = _with_reflection(x)  # to the STFT's one frame more
            lengths = None if lengths is None else lengths + 1
        mask = end_mask(lengths, x.shape[2])
        injected = masked(self.source_downs[stage](spectrum), mask)
        x = masked(x, mask) + self.source_resblocks[stage](injected, mask)
        kernels = len(config.resblock_kernels)
        first, *others = self.resblocks[stage * kernels : (stage + 1) * kernels]
        total = first(x, mask)
        for block in others:
            total += block(x, mask)
        return total.div_(kernels), lengths


def _with_reflection(x: Tensor) -> Tensor:
    """[B, C, size] -> [B, C, size + 1], mirrored at the start; stays a view of [B, size + 1, C]."""
    x = x.transpose(1, 2)
    return torch.cat((x[:, 1:2], x), dim=1).transpose(1, 2)


def _source_down(channels: int, outputs: int, rate: int) -> nn.Conv1d:
    """From the STFT's rate down to a stage's."""
    if rate == 1:
        return Conv(channels, outputs, 1)
    return Conv(channels, outputs, 2 * rate, rate, padding=rate // 2)
