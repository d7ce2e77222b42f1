"""The estimator of the flow: a diffusion transformer that says where a noisy mel should move.

In reading order: what each frame is told (time, speech ids, prompt), one transformer block, the
estimator. Parameters have the names of the published checkpoint, `estimator.` in front.

Of what an estimate depends on, only `x` and the time change while a flow is integrated, so the
rest can be computed before the loop: `DiT.forward` is the whole estimate, and it is written with
the parts that a sampler calls one by one: `fixed_part`, `modulations`, `rotary_embed`, `estimate`.

Shapes are named B rows, T frames (50 per second), N speech ids, S times, D `dim`, E `text_dim`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_tts.linear import joined, pack

EPS: Final = 1e-6
ROTARY_BASE: Final = 10_000.0


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the estimator. The defaults are those of the published one."""

    mel_bins: int = 80
    speech_vocabulary: int = 100_000
    """Speech ids that have an embedding, without the spare row at the end of the table."""
    speaker_dim: int = 192
    text_dim: int = 512
    text_blocks: int = 4
    text_multiplier: int = 2
    text_positions: int = 4096
    """Frames that have a position of their own; all later ones share the last."""
    dim: int = 768
    blocks: int = 18
    heads: int = 12
    head_dim: int = 64
    feed_forward_multiplier: int = 2
    time_frequencies: int = 256
    position_kernel: int = 31
    position_groups: int = 16


@dataclass(frozen=True)
class Modulations:
    """What time and speaker do to every block, for S times and B rows."""

    blocks: Tensor
    """[S, blocks, B, 6, D]: shift, gain and gate of the attention, then of the feed-forward."""
    out: Tensor
    """[S, B, 2, D]: gain and shift of the last norm."""

    @staticmethod
    def concatenate(parts: Sequence[Modulations]) -> Modulations:
        """The rows of all parts, in order."""
        return Modulations(
            blocks=torch.cat([part.blocks for part in parts], dim=2),
            out=torch.cat([part.out for part in parts], dim=1),
        )


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with zeros where the mask, which is broadcast, has zeros; as it is without a mask."""
    return x if mask is None else x * mask


def nearest_ids(speech_ids: Tensor, frames: int) -> Tensor:
    """Stretch ids [N] to frames [T] by nearest neighbour; as floats, which hold ids exactly."""
    stretched = F.interpolate(speech_ids[None, None].float(), size=frames, mode="nearest")
    return stretched[0, 0].long()


class TimeEmbedding(nn.Module):
    """[S] times between 0 (noise) and 1 (mel) -> [S, D]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.frequencies = config.time_frequencies // 2
        self.time_mlp = nn.Sequential(
            nn.Linear(config.time_frequencies, config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, config.dim),
        )

    def forward(self, times: Tensor) -> Tensor:
        exponents = torch.arange(self.frequencies, device=times.device, dtype=torch.float32)
        rates = torch.exp(exponents * (-math.log(10_000.0) / (self.frequencies - 1)))
        angles = 1000.0 * times[:, None] * rates  # [S, frequencies]
        return self.time_mlp(torch.cat((angles.sin(), angles.cos()), dim=-1))


class ResponseNorm(nn.Module):
    """Global response normalisation over *time*: every frame depends on the length of the whole."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        response = torch.linalg.vector_norm(masked(x, mask), dim=1, keepdim=True)  # [B, 1, C]
        relative = response / (response.mean(dim=-1, keepdim=True) + EPS)
        return torch.addcmul(self.beta, x, 1 + self.gamma * relative)


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt V2 block over the embedded speech ids, [B, T, E] -> [B, T, E]."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pwconv1 = nn.Linear(dim, inner_dim)
        self.grn = ResponseNorm(inner_dim)
        self.pwconv2 = nn.Linear(inner_dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.dwconv(masked(x, mask).transpose(1, 2)).transpose(1, 2)
        y = F.gelu(self.pwconv1(self.norm(y)))
        return x + self.pwconv2(self.grn(y, mask))


class SpeechIdEmbedding(nn.Module):
    """[B, T] speech ids, one per frame -> [B, T, E]. The checkpoint calls them text."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.positions = config.text_positions
        self.text_embed = nn.Embedding(config.speech_vocabulary + 1, config.text_dim)
        inner_dim = config.text_dim * config.text_multiplier
        self.text_blocks = nn.ModuleList(
            ConvNeXtBlock(config.text_dim, inner_dim) for _ in range(config.text_blocks)
        )

    def forward(self, frame_ids: Tensor, mask: Tensor | None) -> Tensor:
        x = self.text_embed(frame_ids)
        x = x + self.position_table(x.shape[1], x.device)
        for block in self.text_blocks:
            x = block(x, mask)
        return x

    def position_table(self, frames: int, device: torch.device) -> Tensor:
        """[T, E]: all cosines, then all sines; frames past the last position repeat it."""
        dim = self.text_embed.embedding_dim
        steps = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        rates = 1.0 / (ROTARY_BASE ** (steps / dim))
        positions = torch.arange(frames, device=device).clamp_(max=self.positions - 1)
        angles = torch.outer(positions.float(), rates)  # [T, E / 2]
        return torch.cat((angles.cos(), angles.sin()), dim=-1)


class PositionConvolution(nn.Module):
    """Two wide grouped convolutions that tell a frame where it stands, [B, T, D] -> [B, T, D]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        convs = [
            nn.Conv1d(
                config.dim,
                config.dim,
                config.position_kernel,
                padding=config.position_kernel // 2,
                groups=config.position_groups,
            )
            for _ in range(2)
        ]
        self.conv1d = nn.Sequential(convs[0], nn.Mish(), convs[1], nn.Mish())

    @property
    def convs(self) -> list[nn.Conv1d]:
        return cast(list[nn.Conv1d], [self.conv1d[0], self.conv1d[2]])

    def fuse(self) -> None:
        """Lay the weights out in memory as they are read."""
        for conv in self.convs:
            image = conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
            conv.weight.data = image.squeeze(2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for conv in self.convs:
            x = F.mish(_over_time(conv, masked(x, mask)))
        return x


def _over_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A grouped convolution of x [B, T, D], as one of images that are one pixel high.

    For these, torch has kernels that read channels where they lie, beside each other; of sequences
    it would make a copy of [B, D, T] first, and takes twice the time.
    """
    image, weight = x.transpose(1, 2).unsqueeze(2), conv.weight.unsqueeze(2)  # [B, D, 1, T]
    padding = (0, conv.kernel_size[0] // 2)
    y = F.conv2d(image, weight, conv.bias, padding=padding, groups=conv.groups)
    return y.squeeze(2).transpose(1, 2)  # [B, D, 1, T] -> [B, T, D]


class InputEmbedding(nn.Module):
    """Joins noisy mel, prompt mel and speech ids of a frame: 80 + 80 + E -> D."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.mel_bins = config.mel_bins
        self.proj = nn.Linear(2 * config.mel_bins + config.text_dim, config.dim)
        self.conv_pos_embed = PositionConvolution(config)

    def fixed_part(self, prompt: Tensor, text: Tensor) -> Tensor:
        """What does not change with x: [B, T, 80] and [B, T, E] -> [B, T, D]."""
        weight = self.proj.weight[:, self.mel_bins :]
        return F.linear(torch.cat((prompt, text), dim=-1), weight, self.proj.bias)

    def forward(self, x: Tensor, fixed: Tensor, mask: Tensor | None) -> Tensor:
        """x [b, T, 80] and a fixed part of B rows, a multiple of b: each x then serves several."""
        joined = F.linear(x, self.proj.weight[:, : self.mel_bins])  # [B, T, D]
        joined = joined.repeat(fixed.shape[0] // x.shape[0], 1, 1) + fixed
        return joined + self.conv_pos_embed(joined, mask)


class Modulation(nn.Module):
    """What a condition [..., D + speaker] makes of a block: `len(gains)` vectors of D.

    The checkpoint's scales multiply as 1 + scale; the one is added here, once.
    """

    def __init__(self, config: DiTConfig, is_gain: Sequence[bool]) -> None:
        super().__init__()
        self.is_gain = tuple(is_gain)
        self.linear = nn.Linear(config.dim + config.speaker_dim, len(is_gain) * config.dim)

    def forward(self, condition: Tensor) -> Tensor:
        parts = self.linear(F.silu(condition)).unflatten(-1, (len(self.is_gain), -1))
        ones = torch.tensor(self.is_gain, device=parts.device, dtype=parts.dtype)
        return parts + ones[:, None]  # [..., len(is_gain), D]


def modulated_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without parameters of its own, then gain and shift, each [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), gain)


class Attention(nn.Module):
    """Full self-attention, [B, T, D] -> [B, T, D].

    The rotation is applied to the first `head_dim` channels of all, before they are split into
    heads: so the first head alone knows positions. The checkpoint was trained this way.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        inner_dim = config.heads * config.head_dim
        self.to_q = nn.Linear(config.dim, inner_dim)
        self.to_k = nn.Linear(config.dim, inner_dim)
        self.to_v = nn.Linear(config.dim, inner_dim)
        self.to_out = nn.ModuleList([nn.Linear(inner_dim, config.dim)])
        self.to_qkv: nn.Module | None = None

    def fuse(self) -> None:
        """Replace the three projections by one of three times the rows."""
        self.to_qkv = joined((self.to_q, self.to_k, self.to_v))
        del self.to_q, self.to_k, self.to_v

    def forward(self, x: Tensor, rope: Tensor, attention_mask: Tensor | None) -> Tensor:
        # [B, T, 3, heads, head_dim]
        qkv = self._project(x.to(self.dtype)).unflatten(-1, (3, self.heads, self.head_dim))
        qkv[:, :, :2, 0] = rotated(qkv[:, :, :2, 0], rope)
        heads = qkv.permute(2, 0, 3, 1, 4)
        if heads.device.type == "cpu":  # which reads a head's rows faster where they lie together
            heads = heads.contiguous()
        q, k, v = heads  # each [B, heads, T, head_dim]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return self.to_out[0](y.transpose(1, 2).flatten(2))  # [B, heads, T, ..] -> [B, T, inner]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.to_out.parameters()).dtype

    def _project(self, x: Tensor) -> Tensor:
        if self.to_qkv is not None:
            return self.to_qkv(x)
        return torch.cat((self.to_q(x), self.to_k(x), self.to_v(x)), dim=-1)


def rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Turn neighbouring channels of x [B, T, 2, head_dim], pair by pair, by the frame's angles."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # [B, T, 2, head_dim / 2]
    return torch.view_as_real(pairs * rope[:, None]).flatten(-2)


class FeedForward(nn.Module):
    """[B, T, D] -> [B, T, D] over a wider layer."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner_dim = config.dim * config.feed_forward_multiplier
        self.ff = nn.Sequential(
            nn.Sequential(nn.Linear(config.dim, inner_dim), nn.GELU(approximate="tanh")),
            nn.Identity(),  # the checkpoint counts a dropout here
            nn.Linear(inner_dim, config.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x.to(next(self.ff.parameters()).dtype))


class Block(nn.Module):
    """Attention and feed-forward, each entered and left through the modulation of its block."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config, (False, True, False, False, True, False))
        self.attn = Attention(config)
        self.ff = FeedForward(config)

    def forward(
        self, x: Tensor, modulation: Tensor, rope: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        """x [B, T, D], modulation [B, 6, D] -> [B, T, D]."""
        shift, gain, gate, ff_shift, ff_gain, ff_gate = modulation.unsqueeze(2).unbind(1)
        attended = self.attn(modulated_norm(x, gain, shift), rope, attention_mask)
        x = torch.addcmul(x, gate, attended)
        return torch.addcmul(x, ff_gate, self.ff(modulated_norm(x, ff_gain, ff_shift)))


class Rotary(nn.Module):
    """Rotary angles as complex numbers on the unit circle, [T, head_dim / 2].

    Their rates are in the checkpoint, so they are read from there.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        steps = torch.arange(0, config.head_dim, 2).float()
        self.inv_freq: Tensor
        self.register_buffer("inv_freq", 1.0 / (ROTARY_BASE ** (steps / config.head_dim)))

    def forward(self, frames: int) -> Tensor:
        positions = torch.arange(frames, device=self.inv_freq.device, dtype=torch.float32)
        angles = torch.outer(positions, self.inv_freq.float())  # [T, head_dim / 2]
        return torch.polar(torch.ones_like(angles), angles)


class DiT(nn.Module):
    """The estimator: noisy mel, prompt mel, speech ids, time and speaker -> velocity of the mel."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimeEmbedding(config)
        self.text_emb_layer = SpeechIdEmbedding(config)
        self.emb_concator = InputEmbedding(config)
        self.rotary_embed = Rotary(config)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm_out = Modulation(config, (True, False))
        self.proj_out = nn.Linear(config.dim, config.mel_bins)

    def forward(
        self,
        x: Tensor,
        prompt: Tensor,
        speech_ids: Tensor,
        time: Tensor,
        speaker: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """One whole estimate of one sequence, [1, T, 80] -> [1, T, 80].

        Args:
            x: the noisy mel, [1, T, 80].
            prompt: the prompt's mel from the first frame on and zeros after it, [1, T, 80].
            speech_ids: of prompt and speech, [N].
            time: between 0 and 1, [1].
            speaker: of length 1, or zeros, [1, speaker_dim].
            attention_mask: true where a row may see a column, [T, T].
        """
        frames = x.shape[1]
        text = self.text_emb_layer(nearest_ids(speech_ids, frames)[None], mask=None)
        modulations = self.modulations(time, speaker)
        return self.estimate(
            x,
            self.emb_concator.fixed_part(prompt, text),
            modulations.blocks[0],
            modulations.out[0],
            self.rotary_embed(frames),
            attention_mask=attention_mask,
        )

    def modulations(self, times: Tensor, speakers: Tensor) -> Modulations:
        """For [S] times and [B, speaker_dim] speakers. A third of all weights is used here only."""
        time = self.time_embed(times)  # [S, D]
        steps, rows = len(times), len(speakers)
        condition = torch.cat(  # [S, B, D + speaker_dim]
            (time[:, None].expand(-1, rows, -1), speakers[None].expand(steps, -1, -1)), dim=-1
        )
        blocks = [block.attn_norm(condition) for block in self.blocks]
        return Modulations(torch.stack(blocks, dim=1), self.norm_out(condition))

    def estimate(
        self,
        x: Tensor,
        fixed: Tensor,
        block_modulations: Tensor,
        out_modulation: Tensor,
        rope: Tensor,
        *,
        frame_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """The part of an estimate that depends on x, for rows of any lengths.

        Args:
            x: [B, T, 80], or fewer rows that divide B: row i of B then has x of row i modulo them.
            fixed: of `InputEmbedding.fixed_part`, [B, T, D].
            block_modulations: [blocks, B, 6, D].
            out_modulation: [B, 2, D].
            rope: of T frames.
            frame_mask: 1 at each row's frames and 0 beyond its end, [B, T, 1].
            attention_mask: true or 0 where a row may see a column, false or -inf where it may not,
                broadcast to [B, heads, T, T].

        Returns:
            [B, T, 80]; beyond a row's end there is nothing of meaning.
        """
        x = self.emb_concator(x, fixed, frame_mask)
        for block, modulation in zip(self.blocks, block_modulations, strict=True):
            x = block(x, modulation, rope, attention_mask)
        gain, shift = out_modulation.unsqueeze(2).unbind(1)
        return self.proj_out(modulated_norm(x, gain, shift))

    def fuse(self, matmul_dtype: torch.dtype = torch.float32) -> None:
        """Make it faster, for good: the state dict has the published names no longer.

        With bfloat16, attention and feed-forward multiply in it; sums between blocks, norms and
        everything else stay in float32.
        """
        self.emb_concator.conv_pos_embed.fuse()
        for block in self.blocks:
            block.attn.fuse()
            for part in (block.attn, block.ff):
                part.to(matmul_dtype)
                pack(part)

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.transformer_blocks))

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Of attention and feed-forward; a float mask of the attention must have it."""
        return self.blocks[0].attn.dtype
