"""The flow as its specification reads, one sequence and one pass at a time, nothing kept.

Functions over a state dict of the published names, with torch's own operations only: what the
package computes ahead, fuses, batches or masks is done here at every step, plainly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]


def linear(sd: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, sd[f"{name}.weight"], sd[f"{name}.bias"])


def time_embedding(sd: State, t: torch.Tensor) -> torch.Tensor:
    first = "estimator.time_embed.time_mlp.0"
    half = sd[f"{first}.weight"].shape[1] // 2
    i = torch.arange(half).float()
    angle = 1000 * t.unsqueeze(1) * torch.exp(-i * math.log(10000) / (half - 1)).unsqueeze(0)
    wave = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
    return linear(sd, "estimator.time_embed.time_mlp.2", F.silu(linear(sd, first, wave)))


def text_embedding(sd: State, ids: torch.Tensor, frames: int) -> torch.Tensor:
    """ids [1, N] -> [1, T, E]."""
    stretched = F.interpolate(ids[:, None].float(), size=frames, mode="nearest")[:, 0].long()
    table = sd["estimator.text_emb_layer.text_embed.weight"]
    h = F.embedding(stretched, table)
    dim = h.shape[2]
    freqs = 1.0 / (10000.0 ** (torch.arange(0, dim, 2).float() / dim))
    angles = torch.outer(torch.arange(4096), freqs).float()
    positions = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    h = h + positions[[min(frame, 4095) for frame in range(frames)]]
    n = 0
    while f"estimator.text_emb_layer.text_blocks.{n}.norm.weight" in sd:
        h = convnext(sd, f"estimator.text_emb_layer.text_blocks.{n}", h)
        n += 1
    return h


def convnext(sd: State, name: str, h: torch.Tensor) -> torch.Tensor:
    dim = h.shape[2]
    conv = sd[f"{name}.dwconv.weight"], sd[f"{name}.dwconv.bias"]
    y = F.conv1d(h.transpose(1, 2), *conv, padding=3, groups=dim).transpose(1, 2)
    y = F.layer_norm(y, (dim,), sd[f"{name}.norm.weight"], sd[f"{name}.norm.bias"], 1e-6)
    y = F.gelu(linear(sd, f"{name}.pwconv1", y))
    over_time = torch.sqrt((y**2).sum(dim=1, keepdim=True))
    n = over_time / (over_time.mean(dim=2, keepdim=True) + 1e-6)
    y = sd[f"{name}.grn.gamma"] * (y * n) + sd[f"{name}.grn.beta"] + y
    return h + linear(sd, f"{name}.pwconv2", y)


def input_embedding(
    sd: State, x: torch.Tensor, cond: torch.Tensor, text: torch.Tensor, groups: int
) -> torch.Tensor:
    h = linear(sd, "estimator.emb_concator.proj", torch.cat([x, cond, text], dim=2))
    y = h.transpose(1, 2)
    for layer in (0, 2):
        name = f"estimator.emb_concator.conv_pos_embed.conv1d.{layer}"
        weight = sd[f"{name}.weight"]
        y = F.conv1d(y, weight, sd[f"{name}.bias"], padding=weight.shape[2] // 2, groups=groups)
        y = y * torch.tanh(F.softplus(y))
    return y.transpose(1, 2) + h


def rotate(x: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """The first channels of x [1, T, heads * head_dim], as many as there are frequencies."""
    width = freqs.shape[1]
    front, rest = x[:, :, :width], x[:, :, width:]
    turned = torch.empty_like(front)
    turned[:, :, 0::2] = -front[:, :, 1::2]
    turned[:, :, 1::2] = front[:, :, 0::2]
    return torch.cat([front * torch.cos(freqs) + turned * torch.sin(freqs), rest], dim=2)


def transformer_block(
    sd: State,
    name: str,
    h: torch.Tensor,
    condition: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    frames, dim = h.shape[1], h.shape[2]
    six = linear(sd, f"{name}.attn_norm.linear", F.silu(condition))
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = six.chunk(6, dim=1)
    inv_freq = sd["estimator.rotary_embed.inv_freq"]
    freqs = torch.arange(frames).float()[:, None] * inv_freq[None, :]
    freqs = freqs.repeat_interleave(2, dim=1)
    y = F.layer_norm(h, (dim,), eps=1e-6) * (1 + scale_msa[:, None]) + shift_msa[:, None]
    q = rotate(linear(sd, f"{name}.attn.to_q", y), freqs)
    k = rotate(linear(sd, f"{name}.attn.to_k", y), freqs)
    v = linear(sd, f"{name}.attn.to_v", y)
    q, k, v = (part.view(1, frames, heads, -1).transpose(1, 2) for part in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    y = y.transpose(1, 2).reshape(1, frames, -1)
    h = h + gate_msa[:, None] * linear(sd, f"{name}.attn.to_out.0", y)
    y = F.layer_norm(h, (dim,), eps=1e-6) * (1 + scale_mlp[:, None]) + shift_mlp[:, None]
    y = F.gelu(linear(sd, f"{name}.ff.ff.0.0", y), approximate="tanh")
    return h + gate_mlp[:, None] * linear(sd, f"{name}.ff.ff.2", y)


def velocity(
    sd: State,
    x: torch.Tensor,
    cond: torch.Tensor,
    ids: torch.Tensor,
    t: torch.Tensor,
    speaker: torch.Tensor,
    *,
    heads: int = 12,
    groups: int = 16,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """x, cond [1, T, 80], ids [1, N], t [1], speaker [1, 192] -> [1, T, 80]."""
    condition = torch.cat([time_embedding(sd, t), speaker], dim=1)
    text = text_embedding(sd, ids, x.shape[1])
    h = input_embedding(sd, x, cond, text, groups)
    n = 0
    while f"estimator.transformer_blocks.{n}.attn_norm.linear.weight" in sd:
        h = transformer_block(sd, f"estimator.transformer_blocks.{n}", h, condition, heads, mask)
        n += 1
    scale, shift = linear(sd, "estimator.norm_out.linear", F.silu(condition)).chunk(2, dim=1)
    h = F.layer_norm(h, (h.shape[2],), eps=1e-6) * (1 + scale)[:, None] + shift[:, None]
    return linear(sd, "estimator.proj_out", h)


@torch.no_grad()
def sample(
    sd: State,
    ids: torch.Tensor,
    prompt_mel: torch.Tensor,
    speaker: torch.Tensor,
    noise: torch.Tensor,
    *,
    earlier: torch.Tensor | None = None,
    override_frames: int = 0,
    steps: int = 10,
    **sizes: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [N], prompt_mel [P, 80], speaker [192], noise [T, 80] -> mel [T - P, 80], x by step."""
    frames = int(len(ids) / 25 * 50)
    cond = torch.zeros(1, frames, prompt_mel.shape[1])
    cond[0, : len(prompt_mel)] = prompt_mel
    speaker = (speaker / speaker.pow(2).sum().sqrt())[None]
    grid = 1 - torch.cos(math.pi / 2 * torch.linspace(0, 1, steps + 1))
    x = noise[None].clone()
    taken = []
    for step in range(steps):
        if earlier is not None:
            x[:, :override_frames] = earlier[step, :override_frames]
        taken.append(x[0].clone())
        t = grid[step][None]
        with_all = velocity(sd, x, cond, ids[None], t, speaker, **sizes)
        without = velocity(sd, x, cond * 0, ids[None], t, speaker * 0, **sizes)
        x = x + (grid[step + 1] - grid[step]) * (1.7 * with_all - 0.7 * without)
    return x[0, len(prompt_mel) :], torch.stack(taken)
