"""Speech ids equal those of transformers' own Whisper layers and a slow search for the codes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from glm_tts.speech_tokenizer import (
    SpeechTokenizer,
    SpeechTokenizerConfig,
    inference_weights,
)

TINY = SpeechTokenizerConfig(
    mels=128, hidden=32, heads=4, ffn=48, positions=1500, layers=2, pooling_layer=2, codes=61
)
OPTIONS = {
    "as published": TINY,
    "causal convolution": replace(TINY, causal_convolution=True),
    "causal attention": replace(TINY, causal_attention=True),
    "blocks": replace(TINY, block_positions=6),
    "all but causal attention": replace(TINY, causal_convolution=True, block_positions=10),
    "pooled before the last layer": replace(TINY, layers=3, block_positions=6),
}


def random_weights(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def tokenizer(config: SpeechTokenizerConfig = TINY, seed: int = 0) -> SpeechTokenizer:
    made = SpeechTokenizer(config).eval()
    random_weights(made, seed)
    return made


def clip(samples: int, seed: int = 0) -> Tensor:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.3 * torch.cumsum(noise, 0) / max(samples, 1) ** 0.5 + 0.02 * noise


# The same by other means


def slow_hidden(model: SpeechTokenizer, log_mel: Tensor, mask: Tensor) -> Tensor:
    """transformers' layers between a literal stem and pool; `mask` [B, F] is 1 for speech."""
    config = model.config
    x = slow_convolution(log_mel, model.conv1, 1, causal=config.causal_convolution)
    x = slow_convolution(x, model.conv2, 2, causal=config.causal_convolution).transpose(1, 2)
    x = x + model.embed_positions.weight[: x.shape[1]]
    mask, block = mask[:, ::2], config.block_positions
    for index, layer in enumerate(model.layers):
        x = whisper_layer(config, layer)(x, slow_mask(mask, block, config.causal_attention))
        if index + 1 == config.pooling_layer:
            x = functional.avg_pool1d(x.transpose(1, 2), config.pooling).transpose(1, 2)
            mask = mask[:, :: config.pooling]
            block = None if block is None else block // config.pooling
    return x


def slow_convolution(x: Tensor, conv: nn.Conv1d, stride: int, *, causal: bool) -> Tensor:
    assert conv.bias is not None
    padded = functional.pad(x, (2, 0) if causal else (1, 1))
    columns = [
        torch.einsum("dck,bck->bd", conv.weight, padded[:, :, at : at + 3]) + conv.bias
        for at in range(0, padded.shape[-1] - 2, stride)
    ]
    return functional.gelu(torch.stack(columns, dim=-1))


def slow_mask(mask: Tensor, block: int | None, causal: bool) -> Tensor:
    B, T = mask.shape
    added = torch.zeros(B, 1, T, T)
    for b in range(B):
        for row in range(T):
            for column in range(T):
                seen = bool(mask[b, column])
                if causal:
                    seen = column <= row
                elif block is not None:
                    seen = seen and (column <= row or column // block == row // block)
                if not seen:
                    added[b, 0, row, column] = torch.finfo(torch.float32).min
    return added


def whisper_layer(config: SpeechTokenizerConfig, ours: nn.Module) -> nn.Module:
    published = WhisperConfig(
        d_model=config.hidden,
        encoder_attention_heads=config.heads,
        encoder_ffn_dim=config.ffn,
    )
    published._attn_implementation = "eager"
    theirs = WhisperEncoderLayer(published).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs


def slow_nearest(hidden: Tensor, codebook: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and by how much the second nearest is farther, in double precision."""
    x, codes = hidden.double().numpy(), codebook.detach().double().numpy()
    distance = np.linalg.norm(x[..., None, :] - codes, axis=-1)
    ordered = np.sort(distance, axis=-1)
    return distance.argmin(-1), ordered[..., 1] - ordered[..., 0]


# The encoder


@pytest.mark.parametrize("option", OPTIONS)
def test_hidden_states_are_those_of_transformers_layers(option: str) -> None:
    model = tokenizer(OPTIONS[option])
    log_mel = torch.randn(2, 128, 48, generator=torch.Generator().manual_seed(1))
    frames = torch.tensor([48, 21])
    mask = (torch.arange(48) < frames[:, None]).int()
    with torch.no_grad():
        expected = slow_hidden(model, log_mel, mask)
        hidden = model.hidden(log_mel, frames)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "as published"])
def test_each_option_changes_what_is_heard(option: str) -> None:
    """So none of the comparisons above passes with the option left out."""
    log_mel = torch.randn(1, 128, 48, generator=torch.Generator().manual_seed(1))
    frames = torch.tensor([48])
    usual = replace(TINY, layers=OPTIONS[option].layers)
    with torch.no_grad():
        hidden = tokenizer(OPTIONS[option]).hidden(log_mel, frames)
        assert (hidden - tokenizer(usual).hidden(log_mel, frames)).abs().max() > 1e-3


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from(sorted(OPTIONS)))
@settings(max_examples=30, deadline=None)
def test_of_padding_only_what_the_convolutions_reach_is_heard(
    spoken: int, more: int, option: str
) -> None:
    """One frame of it; and the last id may average in a position of padding."""
    model = tokenizer(OPTIONS[option])
    kept = -(-spoken // 4)
    F = 4 * (kept + more)
    generator = torch.Generator().manual_seed(spoken)
    log_mel = torch.randn(1, 128, F, generator=generator)
    other = log_mel.clone()
    other[:, :, 4 * kept + 1 :] = torch.randn(1, 128, F - 4 * kept - 1, generator=generator)
    frames = torch.tensor([spoken])
    with torch.no_grad():
        hidden, same = model.hidden(log_mel, frames), model.hidden(other, frames)
    torch.testing.assert_close(same[:, :kept], hidden[:, :kept], atol=1e-5, rtol=0)
    assert (same[:, kept:] - hidden[:, kept:]).abs().max() > 1e-3


@given(st.integers(1, 10), st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_with_causal_convolutions_more_padding_changes_nothing(ids: int, more: int) -> None:
    """Otherwise it does, so a clip is padded to the next id and not to a batch's longest."""
    short = torch.randn(1, 128, 4 * ids, generator=torch.Generator().manual_seed(ids))
    long = functional.pad(short, (0, 4 * more), value=-0.7)  # as zeros are after the logarithm
    frames = torch.tensor([4 * ids])
    causal = tokenizer(OPTIONS["all but causal attention"])
    with torch.no_grad():
        alone, padded = causal.hidden(short, frames), causal.hidden(long, frames)
        torch.testing.assert_close(padded[:, :ids], alone, atol=1e-5, rtol=0)
        usual = tokenizer()
        change = usual.hidden(long, frames)[:, :ids] - usual.hidden(short, frames)
    assert (change.abs().max() > 1e-4) == (more > 0)


# The quantiser


def test_ids_are_the_nearest_codes() -> None:
    model = tokenizer()
    hidden = torch.randn(3, 300, 32, generator=torch.Generator().manual_seed(2))
    expected, margin = slow_nearest(hidden, model.codebook.weight)
    assert margin.min() > 1e-5
    assert np.array_equal(model.quantise(hidden).numpy(), expected)
    by_angle = (functional.normalize(hidden, dim=-1) @ model.codebook.weight.T).argmax(-1).numpy()
    assert (by_angle != expected).any(), "a code's length counts"


# From samples to ids


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("samples", [1, 639, 640, 641, 7000])
def test_a_clip_becomes_the_ids_of_transformers_features_and_layers(
    samples: int, option: str
) -> None:
    model, audio = tokenizer(OPTIONS[option]), clip(samples)
    ids = model.encode(audio)
    made = WhisperFeatureExtractor(feature_size=128)(
        audio.numpy(),
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
        padding="longest",
        pad_to_multiple_of=640,
    )
    mask = made["attention_mask"]
    with torch.no_grad():
        hidden = slow_hidden(model, made["input_features"], mask)
    expected, margin = slow_nearest(hidden, model.codebook.weight)
    kept = mask[0, ::2][::2].bool().numpy()
    assert margin[0, kept].min() > 1e-5
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected[0, kept].tolist()


@given(st.integers(1, 20_000))
@settings(max_examples=25, deadline=None)
def test_every_started_640_samples_are_an_id(samples: int) -> None:
    ids = tokenizer().encode(clip(samples))
    assert ids.shape == (-(-samples // 640),)
    assert ((ids >= 0) & (ids < TINY.codes)).all()


def test_a_long_clip_is_cut_into_segments_of_30_s() -> None:
    model = tokenizer(replace(TINY, hidden=8, heads=2, ffn=8, layers=1, pooling_layer=1))
    audio = clip(30 * 16_000 + 1000)
    ids = model.encode(audio)
    assert len(ids) == 750 + 2
    assert torch.equal(ids[:750], model.encode(audio[: 30 * 16_000]))


def test_only_the_first_channel_is_heard() -> None:
    model, left, right = tokenizer(), clip(5000), clip(5000, seed=1)
    both = model.encode(torch.stack([left, right]))
    assert torch.equal(both, model.encode(left))
    assert not torch.equal(both, model.encode((left + right) / 2))


# The published files

CONFIG: dict[str, Any] = {
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "max_source_positions": 1500,
    "quantize_position": 16,
    "pooling_position": 16,
    "pooling_kernel_size": 2,
    "pooling_type": "avg",
    "quantize_vocab_size": 32_768,
    "encoder_layers": 32,
    "activation_function": "gelu",
}
PREPROCESSOR = {
    "feature_size": 128,
    "n_fft": 400,
    "hop_length": 160,
    "sampling_rate": 16_000,
    "chunk_length": 30,
}


def test_the_published_files_give_the_defaults() -> None:
    config = SpeechTokenizerConfig.from_files(CONFIG, PREPROCESSOR)
    assert config == SpeechTokenizerConfig()
    assert config.samples_per_id == 640


def test_the_full_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = SpeechTokenizer(SpeechTokenizerConfig())
    assert sum(it.numel() for it in model.parameters()) == pytest.approx(365e6, rel=0.02)


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"encoder_causal_convolution": True}, "causal_convolution", True),
        ({"encoder_causal_attention": True}, "causal_attention", True),
        ({"quantize_causal_encoder": True}, "causal_attention", True),
        ({"quantize_causal_block_size": 200}, "block_positions", 200),
        ({"pooling_kernel_size": 4}, "pooling", 4),
    ],
)
def test_options_come_from_the_file(changed: dict[str, Any], field: str, value: object) -> None:
    config = SpeechTokenizerConfig.from_files(CONFIG | changed, PREPROCESSOR)
    assert config == replace(SpeechTokenizerConfig(), **{field: value})


def test_all_that_does_not_fit_is_named_at_once() -> None:
    config = {name: value for name, value in CONFIG.items() if name != "d_model"}
    with pytest.raises(ValueError, match="speech_tokenizer: ") as caught:
        SpeechTokenizerConfig.from_files(
            config | {"pooling_type": "max"}, PREPROCESSOR | {"hop_length": 200}
        )
    assert str(caught.value) == (
        "speech_tokenizer: config.json: d_model is None, not a positive integer; "
        "config.json: pooling_type is 'max', only 'avg' is built here; "
        "preprocessor_config.json: hop_length is 200, only 160 is built here"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 3}, "heads"),
        ({"pooling_layer": 3}, "pooling_layer"),
        ({"pooling_layer": 0}, "0"),
        ({"block_positions": 1}, "block_positions"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changed)


def test_what_inference_does_not_need_is_left_out() -> None:
    model = tokenizer()
    published = {f"model.encoder.{name}": it for name, it in model.state_dict().items()} | {
        "model.encoder.layer_norm.weight": torch.ones(32),
        "model.encoder.layer_norm.bias": torch.ones(32),
        "model.encoder.layers.2.fc1.weight": torch.ones(48, 32),
        "model.encoder.layers.12.fc1.weight": torch.ones(48, 32),
        "model.encoder.embed_positions2.weight": torch.ones(750, 32),
        "model.encoder.ema_count": torch.ones(61),
        "model.encoder.ema_weight": torch.ones(61, 32),
        "model.decoder.layers.0.fc1.weight": torch.ones(48, 32),
    }
    loaded = SpeechTokenizer(TINY)
    loaded.load_state_dict(inference_weights(published, TINY), strict=True)
    assert torch.equal(loaded.encode(clip(3000)), model.encode(clip(3000)))


def test_names_are_those_of_the_checkpoint() -> None:
    with torch.device("meta"):
        names = SpeechTokenizer(SpeechTokenizerConfig()).state_dict().keys()
    assert len(names) == 16 * 15 + 6
    assert "layers.15.self_attn.k_proj.weight" in names
    assert not [name for name in names if re.search(r"k_proj\.bias|embed_positions2|ema_", name)]
