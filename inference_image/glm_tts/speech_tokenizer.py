"""What is said in a clip, as speech ids: 25 a second, out of 32,768.

The lower half of Whisper's encoder, pooled and quantised:

    samples [N] → log-mel [128, F] → two convolutions, the second of stride 2 [F/2, D]
    → 16 layers → average of each pair [F/4, D] → nearest code of each [F/4]

F is 100 frames a second, and N is padded to a multiple of 640, so there are ceil(N / 640) ids.
Names of parameters are those of the published checkpoint below `model.encoder.`.

Shapes: B segments, F mel frames, T positions, D hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm_tts import features

PREFIX: Final = "model.encoder."
"""What the names of the encoder's tensors begin with in the published checkpoint."""

SEGMENT_SECONDS: Final = 30
"""Whisper's encoder has positions for this much; a longer clip is cut into such segments."""

CONVOLUTION_STRIDE: Final = 2

_QUANTISED_ROWS: Final = 256
"""Positions whose distances to all codes are held at once: 32 MiB with 32,768 codes."""

_T = TypeVar("_T")

_TRAINING_ONLY: Final = ("layer_norm.", "embed_positions2.", "ema_count", "ema_weight")


@dataclass(frozen=True)
class SpeechTokenizerConfig:
    """The published values by default; in comments the names in `speech_tokenizer/config.json`."""

    mels: int = 128  # num_mel_bins
    hidden: int = 1280  # d_model
    heads: int = 20  # encoder_attention_heads
    ffn: int = 5120  # encoder_ffn_dim
    positions: int = 1500  # max_source_positions
    layers: int = 16  # quantize_position
    """Layers below the quantiser; those above it, if the checkpoint has any, are not needed."""
    pooling_layer: int = 16  # pooling_position
    """Positions are averaged after this many layers."""
    pooling: int = 2  # pooling_kernel_size
    codes: int = 32_768  # quantize_vocab_size
    causal_convolution: bool = False  # encoder_causal_convolution
    causal_attention: bool = False  # encoder_causal_attention or quantize_causal_encoder
    block_positions: int | None = None  # quantize_causal_block_size
    """A position sees those before it and all of its own block of this many; None: everything."""

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"hidden: {self.hidden} is not a multiple of {self.heads} heads")
        if not 1 <= self.pooling_layer <= self.layers:
            raise ValueError(
                f"pooling_layer: {self.pooling_layer} is not among the {self.layers} layers "
                "below the quantiser"
            )
        if self.block_positions is not None and self.block_positions < self.pooling:
            raise ValueError(
                f"block_positions: {self.block_positions} positions would be pooled to none"
            )

    @classmethod
    def from_files(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Self:
        """From the checkpoint's `config.json` and `preprocessor_config.json`.

        Raises:
            ValueError: a field is missing, or says what is not built here; all of them are named.
        """
        faults = [
            f"config.json: {name} is {config.get(name)!r}, not a positive integer"
            for name in _FIELDS.values()
            if type(config.get(name)) is not int or config[name] < 1
        ]
        faults += _mismatches("config.json", config, _FIXED)
        faults += _mismatches(
            "preprocessor_config.json",
            preprocessor,
            _FEATURES | {"feature_size": config.get("num_mel_bins", features.WHISPER_MELS)},
        )
        if faults:
            raise ValueError("speech_tokenizer: " + "; ".join(faults))
        return cls(
            **{ours: config[theirs] for ours, theirs in _FIELDS.items()},
            causal_convolution=bool(config.get("encoder_causal_convolution", False)),
            causal_attention=bool(
                config.get("encoder_causal_attention") or config.get("quantize_causal_encoder")
            ),
            block_positions=config.get("quantize_causal_block_size"),
        )

    @property
    def samples_per_id(self) -> int:
        """Samples at 16 kHz that become one id."""
        return features.WHISPER_HOP * CONVOLUTION_STRIDE * self.pooling


_FIELDS: Final = {
    "mels": "num_mel_bins",
    "hidden": "d_model",
    "heads": "encoder_attention_heads",
    "ffn": "encoder_ffn_dim",
    "positions": "max_source_positions",
    "layers": "quantize_position",
    "pooling_layer": "pooling_position",
    "pooling": "pooling_kernel_size",
    "codes": "quantize_vocab_size",
}
_FIXED: Final = {"pooling_type": "avg", "activation_function": "gelu"}
_FEATURES: Final = {
    "n_fft": features.WHISPER_FFT,
    "hop_length": features.WHISPER_HOP,
    "sampling_rate": features.SAMPLE_RATE_HZ,
    "chunk_length": SEGMENT_SECONDS,
}


def _mismatches(file: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Fields that say something else; one that is not there says the usual."""
    return [
        f"{file}: {name} is {found[name]!r}, only {value!r} is built here"
        for name, value in wanted.items()
        if found.get(name, value) != value
    ]


class Convolution(nn.Conv1d):
    """Kernel 3, either around a frame or, if causal, up to it. [B, C, F] → [B, D, F / stride]."""

    def __init__(self, channels: int, hidden: int, *, stride: int, causal: bool) -> None:
        super().__init__(channels, hidden, kernel_size=3, stride=stride)
        self.edges = (2, 0) if causal else (1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, self.edges))


class Attention(nn.Module):
    """Self-attention. Keys have no bias."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        D = config.hidden
        self.heads = config.heads
        self.k_proj = nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, D)
        self.q_proj = nn.Linear(D, D)
        self.out_proj = nn.Linear(D, D)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] and a mask [B, 1, T, T], true where a row's position sees a column's."""
        B, T, D = hidden.shape
        query, key, value = (
            project(hidden).view(B, T, self.heads, D // self.heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # [B, H, T, D / H] each
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(B, T, D))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer, as Whisper's."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden)
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)
        self.final_layer_norm = nn.LayerNorm(config.hidden)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), mask)
        return hidden + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(hidden))))


class SpeechTokenizer(nn.Module):
    """Turns a clip into speech ids."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        D, causal = config.hidden, config.causal_convolution
        self.conv1 = Convolution(config.mels, D, stride=1, causal=causal)
        self.conv2 = Convolution(D, D, stride=CONVOLUTION_STRIDE, causal=causal)
        self.embed_positions = nn.Embedding(config.positions, D)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.codebook = nn.Embedding(config.codes, D)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Samples [N], or [channels, N] of which the first counts, at 16 kHz → ids [ceil(N/640)].

        The segments of a clip longer than 30 s are padded to the longest, as the reference does,
        and know nothing of each other.
        """
        weight = self.conv1.weight
        mono = samples.reshape(-1, samples.shape[-1])[0].to(weight.device, torch.float32)
        segments = mono.split(SEGMENT_SECONDS * features.SAMPLE_RATE_HZ)
        padded, lengths = _pad(segments, self.config.samples_per_id)
        log_mel = features.whisper_log_mel(padded).to(weight.dtype)
        frames = torch.tensor(
            [-(-length // features.WHISPER_HOP) for length in lengths], device=weight.device
        )
        ids = self(log_mel, frames)  # [B, N/640]
        counts = [-(-length // self.config.samples_per_id) for length in lengths]
        return torch.cat([row[:count] for row, count in zip(ids, counts, strict=True)])

    def forward(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """[B, 128, F], of which the first `frames` [B] of each are not padding → ids [B, F/4].

        F is a multiple of 4. Ids of padding mean nothing.
        """
        return self.quantise(self.hidden(log_mel, frames))

    def hidden(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """What is quantised: [B, 128, F] → [B, F/4, D]."""
        config = self.config
        x = functional.gelu(self.conv1(log_mel))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)  # [B, T, D] with T = F/2
        x = x + self.embed_positions.weight[: x.shape[1]]
        spoken, block = -(-frames // CONVOLUTION_STRIDE), config.block_positions
        x = self._run(self.layers[: config.pooling_layer], x, spoken, block)
        x = x.unflatten(1, (-1, config.pooling)).mean(dim=2)  # [B, T / 2, D]
        spoken, block = -(-spoken // config.pooling), block and block // config.pooling
        return self._run(self.layers[config.pooling_layer :], x, spoken, block)

    def _run(
        self, layers: Iterable[nn.Module], x: Tensor, spoken: Tensor, block: int | None
    ) -> Tensor:
        mask = self._mask(x.shape[1], spoken, block)
        for layer in layers:
            x = layer(x, mask)
        return x

    def quantise(self, hidden: Tensor) -> Tensor:
        """[B, T, D] → ids [B, T] of the codes nearest to them.

        |x - c|² = |x|² - 2x·c + |c|², and |x|² is the same for all codes.
        """
        codebook = self.codebook.weight
        norms = torch.linalg.vector_norm(codebook, dim=1).square()  # [codes]
        nearest = [
            torch.addmm(norms, rows, codebook.T, alpha=-2.0).argmin(dim=1)
            for rows in hidden.flatten(0, 1).split(_QUANTISED_ROWS)
        ]
        return torch.cat(nearest).view(hidden.shape[:2])

    def _mask(self, positions: int, spoken: Tensor, block: int | None) -> Tensor:
        """[B, 1, T, T]: which columns a row sees. Padding is seen by none.

        Wholly causal attention wins over blocks, and needs no mask for padding: that comes last.
        """
        at = torch.arange(positions, device=spoken.device)
        row, column = at[:, None], at[None, :]
        seen = (column < spoken[:, None, None])[:, None]  # [B, 1, 1, T]
        if self.config.causal_attention:
            return (column <= row).expand(len(spoken), 1, -1, -1)
        if block is not None:
            return seen & ((column <= row) | (column // block == row // block))
        return seen.expand(-1, -1, positions, -1)


def inference_weights(weights: Mapping[str, _T], config: SpeechTokenizerConfig) -> dict[str, _T]:
    """Of a checkpoint's tensors, or of what is known of each, those that a `SpeechTokenizer` has.

    By its names. The rest is Whisper's decoder, layers above the quantiser, and what only training
    needed.
    """
    inner = {
        name.removeprefix(PREFIX): it for name, it in weights.items() if name.startswith(PREFIX)
    }
    return {name: it for name, it in inner.items() if not _is_left_out(name, config.layers)}


def _is_left_out(name: str, layers: int) -> bool:
    if name.startswith("layers."):
        return int(name.split(".")[1]) >= layers
    return name.startswith(_TRAINING_ONLY)


def _pad(segments: tuple[Tensor, ...], multiple: int) -> tuple[Tensor, list[int]]:
    """[B, N] with zeros behind, N the next multiple above the longest; and the true lengths."""
    lengths = [len(segment) for segment in segments]
    width = -(-max(lengths) // multiple) * multiple
    padded = [functional.pad(it, (0, width - len(it))) for it in segments]
    return torch.stack(padded), lengths
