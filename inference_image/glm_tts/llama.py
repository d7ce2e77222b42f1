"""The language model: text ids in, speech ids out.

A Llama as Hugging Face publishes it (`LlamaForCausalLM`), with the projections that read the same
input fused into one matrix, and keys and values kept in a cache of fixed size, so that a decoding
step has the same shapes, and the same addresses, whatever the streams in it: a CUDA graph can
replay it.

Read it in this order: `LlamaConfig`, `KeyValueCache`, `Attention`, `MLP`, `Block`, `Llama`.
Shapes: B rows (streams), T new positions of each, L cached positions that are read, H hidden size,
K heads of keys and values, G heads of queries for each of those, D head size, V vocabulary.

Sources: Touvron et al. 2023 (arXiv 2302.13971); grouped queries: Ainslie et al. 2023
(arXiv 2305.13245); rotary positions: Su et al. 2021 (arXiv 2104.09864), in the halves layout of
transformers' `rotate_half`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm_tts.linear import PackedLinear, is_packable, of_weight, pack


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of the model; the defaults are those of the published GLM-TTS."""

    hidden_size: int = 2048
    layers: int = 28
    query_heads: int = 16
    key_heads: int = 4
    head_size: int = 128
    feed_forward_size: int = 6144
    vocabulary_size: int = 98304
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    positions: int = 8192
    """The longest sequence, prompt and output together, that it was trained for."""
    tied_head: bool = True
    """Whether the embedding is also the last projection."""

    @classmethod
    def from_hf(cls, published: Mapping[str, Any]) -> LlamaConfig:
        """The sizes that a `config.json` of transformers gives.

        Raises:
            ValueError: a field is missing, or asks for something that this model does not do.
        """
        names = {
            "hidden_size": "hidden_size",
            "num_hidden_layers": "layers",
            "num_attention_heads": "query_heads",
            "intermediate_size": "feed_forward_size",
            "vocab_size": "vocabulary_size",
        }
        faults = [f"{name}: missing" for name in names if name not in published]
        faults += _unsupported(published)
        if faults:
            raise ValueError("llm/config.json: " + "; ".join(faults))
        sizes = {ours: published[theirs] for theirs, ours in names.items()}
        rope = published.get("rope_parameters") or {}
        return cls(
            **sizes,
            key_heads=published.get("num_key_value_heads", sizes["query_heads"]),
            head_size=published.get("head_dim") or sizes["hidden_size"] // sizes["query_heads"],
            rope_base=rope.get("rope_theta") or published.get("rope_theta", cls.rope_base),
            norm_epsilon=published.get("rms_norm_eps", cls.norm_epsilon),
            positions=published.get("max_position_embeddings", cls.positions),
            # transformers' own default is false; the checkpoint's 1.55 G parameters are tied.
            tied_head=published.get("tie_word_embeddings", False),
        )

    @property
    def queries_per_key(self) -> int:
        """G: heads of queries that share one head of keys and values."""
        return self.query_heads // self.key_heads

    @property
    def parameters(self) -> int:
        """Number of weights."""
        attention = 2 * (self.query_heads + self.key_heads) * self.head_size * self.hidden_size
        block = attention + 3 * self.hidden_size * self.feed_forward_size + 2 * self.hidden_size
        embeddings = (1 if self.tied_head else 2) * self.vocabulary_size * self.hidden_size
        return self.layers * block + embeddings + self.hidden_size


def _unsupported(published: Mapping[str, Any]) -> list[str]:
    """What a configuration asks for that would be computed wrongly without a word."""
    faults = []
    activation = published.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        faults.append(f"hidden_act: {activation!r}, only 'silu' is known")
    for name in ("attention_bias", "mlp_bias"):
        if published.get(name):
            faults.append(f"{name}: true, only false is known")
    rope = published.get("rope_scaling") or published.get("rope_parameters") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        faults.append(f"rope_scaling: {kind!r}, only 'default' is known")
    return faults


class KeyValueCache:
    """Keys and values of every layer for a fixed number of rows of a fixed length."""

    def __init__(
        self,
        config: LlamaConfig,
        rows: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # [layers, B, K, L, D]: one head's keys lie together, as attention reads them.
        shape = (config.layers, rows, config.key_heads, length, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def bytes(self) -> int:
        return 2 * self.keys.numel() * self.keys.element_size()

    def write(self, layer: int, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor):
        """Store keys and values [B, T, K, D] of rows [B] at positions [B, T]."""
        # The slice between two indices moves to the end: the target is [B, T, K, D].
        self.keys[layer][rows[:, None], :, positions] = keys
        self.values[layer][rows[:, None], :, positions] = values

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a row over another row's."""
        for cached in (self.keys, self.values):
            cached[:, target, :, :length] = cached[:, source, :, :length]

    def saved(self, row: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of the first `length` positions of a row: [layers, K, length, D] each."""
        return self.keys[:, row, :, :length].clone(), self.values[:, row, :, :length].clone()

    def restore(self, row: int, saved: tuple[Tensor, Tensor]) -> None:
        """Begin a row with what `saved` returned."""
        keys, values = saved
        self.keys[:, row, :, : keys.shape[2]] = keys
        self.values[:, row, :, : values.shape[2]] = values


class Rotation(nn.Module):
    """Rotary positions: cosines and sines of every position, computed once."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        pairs = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
        angles = torch.outer(torch.arange(config.positions).float(), config.rope_base**-pairs)
        angles = torch.cat((angles, angles), dim=-1)  # [positions, D]
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, 1, D] of positions [B, T]."""
        return self.cosines[positions][:, :, None], self.sines[positions][:, :, None]


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Heads [B, T, heads, D], each turned by its position."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cosines + turned.float() * sines).to(x.dtype)


class Attention(nn.Module):
    """Attention of new positions to everything cached of their row."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.query_heads, self.key_heads = config.query_heads, config.key_heads
        self.head_size = config.head_size
        heads = config.query_heads + 2 * config.key_heads
        self.qkv = nn.Linear(config.hidden_size, heads * config.head_size, bias=False)
        self.out = nn.Linear(config.query_heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, step: Step, layer: int) -> Tensor:
        B, T, _ = x.shape
        K, G, D = self.key_heads, self.query_heads // self.key_heads, self.head_size
        heads = self.qkv(x).view(B, T, -1, D)
        queries, keys, values = heads.split((K * G, K, K), dim=2)
        queries, keys = rotated(queries, step.rotation), rotated(keys, step.rotation)
        step.cache.write(layer, step.rows, step.positions, keys, values)
        keys, values = step.cached(layer)  # [B, K, L, D]
        # The queries that share keys are treated as more positions: no key is read twice.
        queries = queries.view(B, T, K, G, D).permute(0, 2, 1, 3, 4).reshape(B, K, T * G, D)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, step.mask)
        mixed = mixed.view(B, K, T, G, D).permute(0, 2, 1, 3, 4).reshape(B, T, K * G * D)
        return self.out(mixed)


class MLP(nn.Module):
    """Gated feed-forward network with SiLU."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.feed_forward_size, bias=False)
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention, then the feed-forward network, each after a norm and added."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, step: Step, layer: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), step, layer)
        return x + self.mlp(self.mlp_norm(x))


@dataclass(frozen=True)
class Step:
    """Where new positions go, and what of the cache they see; the same in every layer."""

    cache: KeyValueCache
    rows: Tensor
    """Rows of the cache, [B]; they are the first ones unless `row` is set."""
    positions: Tensor
    """[B, T]."""
    rotation: tuple[Tensor, Tensor]
    mask: Tensor
    """Which cached positions a query sees: [B, 1, T * G, L]."""
    row: int | None = None
    """The only row, if it is one, so that it is read without a copy."""

    def cached(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, L, D] that are in reach."""
        L = self.mask.shape[-1]
        first = self.row or 0
        chosen = slice(first, first + len(self.positions))
        return self.cache.keys[layer, chosen, :, :L], self.cache.values[layer, chosen, :, :L]


class Llama(nn.Module):
    """`prefill` reads a prompt into the cache; `decode` adds one position to each row.

    Both return hidden states: `head` makes logits of them.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tied_head:
            self.head.weight = self.embedding.weight
        self.rotation = Rotation(config)
        self._is_packed = False

    def pack(self) -> None:
        """On a CPU, make it faster, for good: the state dict loses the blocks' matrices."""
        pack(self.blocks)
        self._is_packed = True

    def projection(self, head: Tensor) -> nn.Module:
        """The last layer, hidden states -> logits, with all or some rows of `head`'s weight."""
        layer = of_weight(head)
        return PackedLinear(layer) if self._is_packed and is_packable(layer) else layer

    @property
    def block_bytes(self) -> int:
        """Of the blocks' weights, all of which a step reads."""
        config, weight = self.config, self.embedding.weight
        embeddings = (1 if config.tied_head else 2) * weight.numel()
        return (config.parameters - embeddings) * weight.element_size()

    def prefill(self, ids: Tensor, cache: KeyValueCache, row: int, start: int = 0) -> Tensor:
        """The hidden state [1, H] after a prompt of ids [T]; its keys and values go to a row.

        Args:
            start: positions of the row that are there already, such as a shared prompt's.
        """
        positions = torch.arange(start, start + len(ids), device=ids.device)[None]
        rows = torch.full((1,), row, device=ids.device)
        step = self._step(cache, rows, positions, start + len(ids), row)
        return self._hidden(ids[None], step)[:, -1]

    def decode(self, ids: Tensor, positions: Tensor, cache: KeyValueCache, length: int) -> Tensor:
        """The hidden state [B, H] after one more id [B] at a position [B] of the first B rows.

        Args:
            length: cached positions that are read; above every position given. A fixed one keeps
                the shapes fixed.
        """
        rows = torch.arange(len(ids), device=ids.device)
        step = self._step(cache, rows, positions[:, None], length)
        return self._hidden(ids[:, None], step)[:, 0]

    def _step(
        self,
        cache: KeyValueCache,
        rows: Tensor,
        positions: Tensor,
        length: int,
        row: int | None = None,
    ) -> Step:
        seen = torch.arange(length, device=positions.device) <= positions[:, :, None]  # [B, T, L]
        mask = seen.repeat_interleave(self.config.queries_per_key, dim=1)[:, None]
        return Step(cache, rows, positions, self.rotation.at(positions), mask, row)

    def _hidden(self, ids: Tensor, step: Step) -> Tensor:
        x = self.embedding(ids)  # [B, T, H]
        for layer, block in enumerate(self.blocks):
            x = block(x, step, layer)
        return self.norm(x)


def fused(published: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """The state dict of `Llama` from that of transformers' `LlamaForCausalLM`.

    Raises:
        KeyError: a tensor is missing.
        ValueError: there is one that the model has no place for.
    """
    left = dict(published)
    state = {
        "embedding.weight": left.pop("model.embed_tokens.weight"),
        "norm.weight": left.pop("model.norm.weight"),
    }
    # A tied checkpoint may hold the same matrix twice.
    head = left.pop("lm_head.weight", None)
    state["head.weight"] = state["embedding.weight"] if config.tied_head else _given(head)
    for layer in range(config.layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        for target, sources in _FUSED.items():
            parts = [left.pop(f"{theirs}.{source}.weight") for source in sources]
            state[f"{ours}.{target}.weight"] = torch.cat(parts) if len(parts) > 1 else parts[0]
    left = {name: tensor for name, tensor in left.items() if not name.endswith("inv_freq")}
    if left:
        raise ValueError(f"unexpected tensors: {', '.join(sorted(left))}")
    return state


_FUSED = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "attention_norm": ("input_layernorm",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
    "mlp_norm": ("post_attention_layernorm",),
}


def _given(head: Tensor | None) -> Tensor:
    if head is None:
        raise KeyError("lm_head.weight")
    return head
