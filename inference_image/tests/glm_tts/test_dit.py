"""The estimator: its parameters, and each part against numpy, torch's own, or the literal loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from glm_tts.dit import (
    Attention,
    ConvNeXtBlock,
    DiT,
    DiTConfig,
    Modulation,
    PositionConvolution,
    ResponseNorm,
    Rotary,
    SpeechIdEmbedding,
    TimeEmbedding,
    modulated_norm,
    nearest_ids,
)
from glm_tts.flow import Flow, FlowConfig
from inference_image.tests.glm_tts import literal_flow

SMALL = DiTConfig(
    speech_vocabulary=50,
    speaker_dim=12,
    text_dim=24,
    text_blocks=2,
    dim=32,
    blocks=3,
    heads=4,
    head_dim=8,
    time_frequencies=16,
    position_kernel=7,
    position_groups=4,
)
TOLERANCE = 1e-5


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a value: the published initial ones (zeros) would hide faults."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in)
        parameter.requires_grad_(False)


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())


class Operations(TorchDispatchMode):
    """Records what torch is asked to do, with the shapes of tensors."""

    SYNCHRONISING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[torch.Size]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
        self.seen.append((str(func), shapes))
        return func(*args, **(kwargs or {}))

    def waits(self) -> list[str]:
        """Operations for which the host would wait for a device."""
        return [name for name, _ in self.seen if any(it in name for it in self.SYNCHRONISING)]


def specified_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, written out from its specification."""
    shapes: dict[str, tuple[int, ...]] = {"rotary_embed.inv_freq": (32,)}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    layer("time_embed.time_mlp.0", 768, 256)
    layer("time_embed.time_mlp.2", 768, 768)
    shapes["text_emb_layer.text_embed.weight"] = (100_001, 512)
    for n in range(4):
        block = f"text_emb_layer.text_blocks.{n}"
        layer(f"{block}.dwconv", 512, 1, 7)
        layer(f"{block}.norm", 512)
        layer(f"{block}.pwconv1", 1024, 512)
        shapes[f"{block}.grn.gamma"] = shapes[f"{block}.grn.beta"] = (1, 1, 1024)
        layer(f"{block}.pwconv2", 512, 1024)
    layer("emb_concator.proj", 768, 672)
    layer("emb_concator.conv_pos_embed.conv1d.0", 768, 48, 31)
    layer("emb_concator.conv_pos_embed.conv1d.2", 768, 48, 31)
    for n in range(18):
        block = f"transformer_blocks.{n}"
        layer(f"{block}.attn_norm.linear", 4608, 960)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            layer(f"{block}.attn.{projection}", 768, 768)
        layer(f"{block}.ff.ff.0.0", 1536, 768)
        layer(f"{block}.ff.ff.2", 768, 1536)
    layer("norm_out.linear", 1536, 960)
    layer("proj_out", 80, 768)
    return {f"estimator.{name}": shape for name, shape in shapes.items()}


def test_the_published_sizes_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        flow = Flow(FlowConfig())
    shapes = {name: tuple(value.shape) for name, value in flow.state_dict().items()}
    assert shapes == specified_shapes()
    assert len(shapes) == 308
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(225.3e6, abs=5e4)


def test_the_published_state_dict_loads_strictly() -> None:
    state = {name: torch.empty(s, device="meta") for name, s in specified_shapes().items()}
    with torch.device("meta"):
        flow = Flow(FlowConfig())
    flow.load_state_dict(state, strict=True, assign=True)
    del state["estimator.proj_out.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*estimator\.proj_out\.bias"):
        flow.load_state_dict(state, strict=True, assign=True)


def test_the_time_embedding_is_sines_then_cosines_of_a_thousandfold_time() -> None:
    embedding = TimeEmbedding(SMALL)
    randomise(embedding)
    times = torch.tensor([0.0, 0.0123, 0.5, 1.0])
    half = SMALL.time_frequencies // 2
    rates = np.exp(-np.arange(half) * np.log(1e4) / (half - 1))
    angles = 1000 * times.double().numpy()[:, None] * rates
    wave = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    w0, b0, w2, b2 = (p.double().numpy() for p in embedding.time_mlp.parameters())
    hidden = wave @ w0.T + b0
    expected = torch.from_numpy(hidden / (1 + np.exp(-hidden)) @ w2.T + b2).float()
    assert close(embedding(times), expected, 1e-4)  # float32 angles of up to 1000 radians
    swapped = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ w0.T + b0
    usual = torch.from_numpy(swapped / (1 + np.exp(-swapped)) @ w2.T + b2).float()
    assert not close(embedding(times), usual, 1e-2)


@given(count=st.integers(1, 2000))
def test_each_id_lasts_two_frames_and_the_last_may_lose_one(count: int) -> None:
    ids = torch.arange(count) * 41 + 1
    frames = int(count / 25 * 50)
    expected = np.repeat(ids.numpy(), 2)[:frames]
    assert np.array_equal(nearest_ids(ids, frames).numpy(), expected)


@pytest.mark.parametrize("count", [29, 57, 58, 113, 114, 115, 116, 201])
def test_ids_are_neither_filled_up_nor_shifted_nor_stretched_by_another_rule(count: int) -> None:
    ids, frames = torch.arange(count) + 1, int(count / 25 * 50)
    assert frames == 2 * count - 1
    filled_up = F.pad(ids, (0, frames - count))
    shifted = nearest_ids(ids, frames) + 1
    rows = ids[None, None].float()
    half_a_frame_later = F.interpolate(rows, size=frames, mode="nearest-exact")[0, 0].long()
    for usual in (filled_up, shifted, half_a_frame_later):
        assert not torch.equal(nearest_ids(ids, frames), usual)


def grn_in_numpy(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axis: int) -> np.ndarray:
    norm = np.sqrt((x**2).sum(axis=axis, keepdims=True))
    return gamma * (x * norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)) + beta + x


def test_response_norm_is_taken_over_time() -> None:
    norm = ResponseNorm(6)
    randomise(norm)
    x = random(2, 9, 6)
    arrays = [value.double().numpy() for value in (x, norm.gamma, norm.beta)]
    over_time = torch.from_numpy(grn_in_numpy(*arrays, axis=1)).float()
    over_channels = torch.from_numpy(grn_in_numpy(*arrays, axis=2)).float()
    assert close(norm(x, None), over_time)
    assert not close(norm(x, None), over_channels, 1e-2)


def test_response_norm_of_a_masked_row_counts_its_own_frames_only() -> None:
    norm = ResponseNorm(6)
    randomise(norm)
    x = random(1, 9, 6)
    mask = (torch.arange(9) < 5).float()[None, :, None]
    assert close(norm(x, mask)[:, :5], norm(x[:, :5], None))
    assert not close(norm(x, None)[:, :5], norm(x[:, :5], None), 1e-2)


def test_a_convnext_block_is_that_of_the_literal_loop_and_masks_exactly() -> None:
    block = ConvNeXtBlock(8, 16)
    randomise(block)
    state = {f"b.{name}": value for name, value in block.state_dict().items()}
    x = random(1, 11, 8)
    assert close(block(x, None), literal_flow.convnext(state, "b", x))
    mask = (torch.arange(11) < 7).float()[None, :, None]
    assert close(block(x, mask)[:, :7], block(x[:, :7], None))


def test_positions_are_cosines_then_sines_and_stop_at_the_last_one() -> None:
    embedding = SpeechIdEmbedding(SMALL)
    table = embedding.position_table(4100, torch.device("cpu"))
    dim = SMALL.text_dim
    rates = 1e4 ** -(np.arange(0, dim, 2) / dim)
    angles = np.minimum(np.arange(4100), 4095)[:, None] * rates
    expected = torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1)).float()
    assert close(table, expected, 5e-4)  # float32 angles of up to 4095 radians
    assert torch.equal(table[4096], table[4095])
    unclamped = np.cos(4099.0)
    assert abs(float(table[4099, 0]) - unclamped) > 0.1


def test_the_position_convolution_masks_between_its_layers() -> None:
    conv = PositionConvolution(SMALL)
    randomise(conv)
    x = random(1, 20, SMALL.dim)
    mask = (torch.arange(20) < 12).float()[None, :, None]
    alone = conv(x[:, :12], None)
    assert close(conv(x, mask)[:, :12], alone)
    masked_once = conv(x * mask, None)[:, :12]
    assert not close(masked_once, alone, 1e-3)
    expected = torch.nn.Sequential(*conv.conv1d)(x.transpose(1, 2)).transpose(1, 2)
    assert close(conv(x, None), expected)


def attention_in_numpy(module: Attention, x: np.ndarray, rotated_heads: int) -> np.ndarray:
    """Rotates so many heads; the softmax is written out."""
    heads, size = module.heads, module.head_dim

    def project(layer: torch.nn.Module) -> np.ndarray:
        weight, bias = (p.double().numpy() for p in layer.parameters())
        return (x @ weight.T + bias).reshape(len(x), heads, size).transpose(1, 0, 2)

    q, k, v = project(module.to_q), project(module.to_k), project(module.to_v)
    angles = np.arange(len(x))[:, None] * 1e4 ** (-np.arange(0, size, 2) / size)
    turn = np.exp(1j * angles)
    for part in (q, k):
        for head in range(rotated_heads):
            pairs = (part[head, :, 0::2] + 1j * part[head, :, 1::2]) * turn
            part[head, :, 0::2], part[head, :, 1::2] = pairs.real, pairs.imag
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(size)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), -1)
    weight, bias = (p.double().numpy() for p in module.to_out.parameters())
    return mixed @ weight.T + bias


@pytest.mark.parametrize("fused", [False, True])
def test_only_the_first_head_is_rotated(fused: bool) -> None:
    attention = Attention(SMALL)
    randomise(attention)
    x = random(1, 13, SMALL.dim)
    first, every = (
        torch.from_numpy(attention_in_numpy(attention, x[0].double().numpy(), heads)).float()
        for heads in (1, SMALL.heads)
    )
    if fused:
        attention.fuse()
    result = attention(x, Rotary(SMALL)(13), None)[0]
    assert close(result, first)
    assert not close(result, every, 1e-3)


def test_the_block_norm_shifts_scales_and_gates_in_the_published_order() -> None:
    modulation = Modulation(SMALL, (False, True, False, False, True, False))
    randomise(modulation)
    condition = random(1, SMALL.dim + SMALL.speaker_dim)
    six = F.linear(F.silu(condition), modulation.linear.weight, modulation.linear.bias)
    parts = modulation(condition)[0]
    for index, part in enumerate(six.view(6, SMALL.dim)):
        assert close(parts[index], part + 1 if index in (1, 4) else part)


def test_the_last_norm_scales_before_it_shifts_unlike_the_blocks() -> None:
    dit = DiT(SMALL)
    randomise(dit)
    condition = random(1, SMALL.dim + SMALL.speaker_dim)
    x = random(1, 5, SMALL.dim)
    layer = dit.norm_out.linear
    scale, shift = F.linear(F.silu(condition), layer.weight, layer.bias).chunk(2, dim=1)
    gain, offset = dit.norm_out(condition).unsqueeze(2).unbind(1)
    plain = F.layer_norm(x, (SMALL.dim,), eps=1e-6)
    assert close(modulated_norm(x, gain, offset), plain * (1 + scale) + shift)
    assert not close(modulated_norm(x, gain, offset), plain * (1 + shift) + scale, 1e-2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_an_estimate_is_that_of_the_literal_loop(fused: bool, masked: bool) -> None:
    config = FlowConfig(estimator=SMALL)
    flow = Flow(config)
    randomise(flow)
    state = dict(flow.state_dict())
    if fused:
        flow.estimator.fuse()
    ids = torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(3))
    x, prompt = random(1, 17, 80), random(1, 17, 80, seed=2)
    speaker, time = random(1, SMALL.speaker_dim, seed=4), torch.tensor([0.35])
    mask = torch.tril(torch.ones(17, 17)).bool() if masked else None
    expected = literal_flow.velocity(
        state, x, prompt, ids[None], time, speaker, heads=4, groups=4, mask=mask
    )
    assert close(flow.estimator(x, prompt, ids, time, speaker, mask), expected)


def test_bfloat16_matmuls_leave_the_sums_between_blocks_in_float32() -> None:
    dit = DiT(SMALL)
    randomise(dit)
    arguments = (random(1, 9, 80), random(1, 9, 80), torch.arange(5), torch.tensor([0.2]))
    exact = dit(*arguments, random(1, SMALL.speaker_dim))
    dit.fuse(torch.bfloat16)
    rounded = dit(*arguments, random(1, SMALL.speaker_dim))
    assert rounded.dtype == torch.float32
    assert dit.matmul_dtype == torch.bfloat16
    difference = (rounded - exact).abs().max()
    assert 0 < difference < 0.1 * exact.abs().max()
