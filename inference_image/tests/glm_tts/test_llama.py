"""The language model, held to transformers' own Llama on the same random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from glm_tts.linear import PackedLinear
from glm_tts.llama import KeyValueCache, Llama, LlamaConfig, fused

SMALL: dict[str, Any] = {
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 56,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def _theirs(**changed: Any) -> transformers.LlamaForCausalLM:
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **changed})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return model.requires_grad_(False)


def _ours(theirs: transformers.LlamaForCausalLM) -> Llama:
    config = LlamaConfig.from_hf(theirs.config.to_dict())
    model = Llama(config)
    model.load_state_dict(fused(theirs.state_dict(), config))
    return model.requires_grad_(False)


THEIRS = _theirs()
OURS = _ours(THEIRS)
_ids = st.lists(st.integers(0, SMALL["vocab_size"] - 1), min_size=1, max_size=20)


def _expected(ids: list[int], theirs: transformers.LlamaForCausalLM = THEIRS) -> Tensor:
    """Logits after the last id, of one run over everything, without a cache."""
    return theirs(torch.tensor([ids]), use_cache=False).logits[0, -1]


def _cache(rows: int = 3, model: Llama = OURS) -> KeyValueCache:
    return KeyValueCache(model.config, rows, length=64)


@pytest.mark.parametrize("tied", [True, False])
def test_a_prompt_gives_the_logits_of_transformers(tied: bool) -> None:
    theirs = _theirs(tie_word_embeddings=tied)
    model = _ours(theirs)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    logits = model.head(model.prefill(torch.tensor(ids), _cache(model=model), row=0))[0]
    torch.testing.assert_close(logits, _expected(ids, theirs), atol=1e-5, rtol=1e-5)


@given(st.lists(_ids, min_size=1, max_size=3), st.data())
def test_rows_decode_as_if_each_were_alone(prompts: list[list[int]], data: st.DataObject) -> None:
    cache = _cache()
    for stale in (cache.keys, cache.values):
        stale.normal_()
    for row, prompt in enumerate(prompts):
        OURS.prefill(torch.tensor(prompt), cache, row)
    for _ in range(data.draw(st.integers(1, 4))):
        new = [data.draw(st.integers(0, 89)) for _ in prompts]
        positions = torch.tensor([len(prompt) for prompt in prompts])
        hidden = OURS.decode(torch.tensor(new), positions, cache, length=32)
        for row, (prompt, one) in enumerate(zip(prompts, new, strict=True)):
            prompt.append(one)
            torch.testing.assert_close(
                OURS.head(hidden[row]), _expected(prompt), atol=1e-5, rtol=1e-5
            )


@given(_ids, _ids)
def test_a_prompt_may_go_on_from_what_another_row_began_with(first: list[int], second: list[int]):
    cache = _cache()
    OURS.prefill(torch.tensor(first), cache, row=2)
    cache.restore(1, cache.saved(2, len(first)))
    hidden = OURS.prefill(torch.tensor(second), cache, row=1, start=len(first))
    expected = _expected(first + second)
    torch.testing.assert_close(OURS.head(hidden)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_row_that_moved_decodes_on() -> None:
    cache = _cache()
    OURS.prefill(torch.tensor([7, 8, 9]), cache, row=2)
    cache.move(2, 0, length=3)
    hidden = OURS.decode(torch.tensor([5]), torch.tensor([3]), cache, length=16)
    torch.testing.assert_close(OURS.head(hidden[0]), _expected([7, 8, 9, 5]), atol=1e-5, rtol=1e-5)


def test_the_published_model_has_a_billion_and_a_half_weights() -> None:
    config = LlamaConfig()
    with torch.device("meta"):
        model = Llama(replace(config, positions=1))
    assert config.parameters == sum(p.numel() for p in model.parameters())
    assert round(config.parameters / 1e9, 3) == 1.552


def test_a_configuration_that_would_be_computed_wrongly_is_refused_with_all_its_faults() -> None:
    published = {**SMALL, "hidden_act": "gelu", "attention_bias": True}
    published["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0}
    del published["vocab_size"]
    with pytest.raises(ValueError, match=r"config\.json") as refusal:
        LlamaConfig.from_hf(published)
    assert str(refusal.value) == (
        "llm/config.json: vocab_size: missing; hidden_act: 'gelu', only 'silu' is known; "
        "attention_bias: true, only false is known; "
        "rope_scaling: 'llama3', only 'default' is known"
    )
    assert LlamaConfig.from_hf(SMALL).queries_per_key == 3


def test_a_tensor_that_is_missing_or_has_no_place_is_named() -> None:
    state = dict(THEIRS.state_dict())
    state["model.layers.9.self_attn.q_proj.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"unexpected tensors: model\.layers\.9\.self_attn"):
        fused(state, OURS.config)
    del state["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(KeyError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        fused(state, OURS.config)


@given(st.lists(_ids, min_size=1, max_size=3))
def test_a_packed_model_gives_the_same_logits(prompts: list[list[int]]) -> None:
    packed = _ours(THEIRS)
    packed.pack()
    head = packed.projection(packed.head.weight)
    assert isinstance(head, PackedLinear)
    assert not [name for name in packed.state_dict() if name.endswith("mlp.down.weight")]
    for model, last in ((OURS, OURS.head), (packed, head)):
        cache = _cache(model=model)
        for row, prompt in enumerate(prompts):
            hidden = model.prefill(torch.tensor(prompt), cache, row)
            torch.testing.assert_close(last(hidden)[0], _expected(prompt), atol=1e-4, rtol=1e-4)
        positions = torch.tensor([len(prompt) for prompt in prompts])
        hidden = model.decode(torch.ones(len(prompts)).long(), positions, cache, 64)
        for row, prompt in enumerate(prompts):
            expected = _expected([*prompt, 1])
            torch.testing.assert_close(last(hidden)[row], expected, atol=1e-4, rtol=1e-4)


def test_bytes_of_the_blocks_are_those_of_their_weights() -> None:
    parameters = sum(it.numel() for it in OURS.blocks.parameters()) + OURS.norm.weight.numel()
    assert OURS.block_bytes == 4 * parameters
