"""HiFT as its specification reads, one mel at a time.

Functions over a state dict of the published names, with torch's own STFT and interpolation: the
source is made sample by sample, and weights are normalised wherever they are used.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]

UPS = ((8, 16), (5, 11), (3, 7))
DOWNS = ((15, 30, 7), (3, 6, 1), (1, 1, 0))
KERNELS = (3, 7, 11)


def weight_of(sd: State, name: str) -> torch.Tensor:
    g = sd[f"{name}.parametrizations.weight.original0"]
    v = sd[f"{name}.parametrizations.weight.original1"]
    return g * v / torch.sqrt((v * v).sum(dim=(1, 2), keepdim=True))


def conv(sd: State, name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
    weight = weight_of(sd, name)
    reach = dilation * (weight.shape[2] - 1) // 2
    return F.conv1d(x, weight, sd[f"{name}.bias"], padding=reach, dilation=dilation)


def pitch(sd: State, mel: torch.Tensor) -> torch.Tensor:
    """mel [B, 80, T] -> [B, T] in Hz."""
    x = mel
    for n in range(5):
        x = F.elu(conv(sd, f"f0_predictor.condnet.{2 * n}", x))
    weight, bias = sd["f0_predictor.classifier.weight"], sd["f0_predictor.classifier.bias"]
    return torch.abs(F.linear(x.transpose(1, 2), weight, bias).squeeze(2))


def source(sd: State, f0: torch.Tensor, scale: int = 480, rate: int = 24000) -> torch.Tensor:
    """f0 [B, T] -> [B, L]; draws from the global generator."""
    f0 = F.interpolate(f0[:, None], scale_factor=scale, mode="nearest").transpose(1, 2)
    harmonics = f0 * torch.arange(1, 10).float()[None, None]
    rad = (harmonics / rate) % 1
    initial = torch.rand(f0.shape[0], 9)
    initial[:, 0] = 0
    rad[:, 0, :] = rad[:, 0, :] + initial
    rad = F.interpolate(rad.transpose(1, 2), scale_factor=1 / scale, mode="linear")
    phase = torch.cumsum(rad, dim=2) * 2 * np.pi
    phase = F.interpolate(phase * scale, scale_factor=scale, mode="linear").transpose(1, 2)
    waves = torch.sin(phase) * 0.1
    uv = (f0 > 10).float()
    waves = waves * uv + (uv * 0.003 + (1 - uv) * 0.1 / 3) * torch.randn_like(waves)
    merged = F.linear(waves, sd["m_source.l_linear.weight"], sd["m_source.l_linear.bias"])
    torch.randn_like(uv)
    return torch.tanh(merged).squeeze(2)


def resblock(sd: State, name: str, x: torch.Tensor) -> torch.Tensor:
    for n, dilation in enumerate((1, 3, 5)):
        y = snake(sd[f"{name}.activations1.{n}.alpha"], x)
        y = conv(sd, f"{name}.convs1.{n}", y, dilation)
        y = snake(sd[f"{name}.activations2.{n}.alpha"], y)
        x = conv(sd, f"{name}.convs2.{n}", y) + x
    return x


def snake(alpha: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    alpha = alpha[None, :, None]
    return x + (1.0 / (alpha + 1e-9)) * torch.pow(torch.sin(x * alpha), 2)


def decode(sd: State, mel: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """mel [B, 80, T], source [B, L] -> [B, L]."""
    window = torch.hann_window(16)
    stft = torch.stft(s, 16, 4, 16, window=window, return_complex=True)
    stft = torch.cat([stft.real, stft.imag], dim=1)
    x = conv(sd, "conv_pre", mel)
    for i, ((rate, kernel), (down, down_kernel, down_pad)) in enumerate(
        zip(UPS, DOWNS, strict=True)
    ):
        x = F.leaky_relu(x, 0.1)
        weight, bias = weight_of(sd, f"ups.{i}"), sd[f"ups.{i}.bias"]
        x = F.conv_transpose1d(x, weight, bias, stride=rate, padding=(kernel - rate) // 2)
        if i == 2:
            x = F.pad(x, (1, 0), mode="reflect")
        weight, bias = sd[f"source_downs.{i}.weight"], sd[f"source_downs.{i}.bias"]
        assert weight.shape[2] == down_kernel
        si = F.conv1d(stft, weight, bias, stride=down, padding=down_pad)
        x = x + resblock(sd, f"source_resblocks.{i}", si)
        x = sum(resblock(sd, f"resblocks.{3 * i + j}", x) for j in range(len(KERNELS))) / 3
        assert isinstance(x, torch.Tensor)
    x = conv(sd, "conv_post", F.leaky_relu(x))
    magnitude = torch.clip(torch.exp(x[:, :9]), max=100.0)
    phase = torch.sin(x[:, 9:])
    spectrum = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
    return torch.clamp(torch.istft(spectrum, 16, 4, 16, window=window), -0.99, 0.99)


@torch.no_grad()
def vocode(sd: State, mel: torch.Tensor) -> torch.Tensor:
    """mel [B, 80, T] -> [B, L]."""
    return decode(sd, mel, source(sd, pitch(sd, mel)))
