"""Joined and packed layers give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glm_tts import linear
from glm_tts.linear import PackedLinear, joined, of_weight, pack
from inference_image.tests.glm_tts.test_dit import close, random

_sizes = st.integers(1, 70)


@given(inputs=_sizes, outputs=_sizes, rows=st.integers(1, 40), biased=st.booleans())
def test_a_packed_layer_gives_what_the_layer_gives_for_any_shape(
    inputs: int, outputs: int, rows: int, biased: bool
) -> None:
    layer = nn.Linear(inputs, outputs, bias=biased)
    for shape in ((rows, inputs), (2, rows, inputs)):
        x = random(*shape)
        assert close(PackedLinear(layer)(x), layer(x))


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_an_activation_goes_along(approximate: str) -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Linear(9, 17), nn.GELU(approximate)), nn.Identity(), nn.Linear(17, 5)
    )
    x = random(3, 9)
    expected = module(x)
    pack(module)
    assert [type(part) for part in module] == [PackedLinear, nn.Identity, PackedLinear]
    assert close(module(x), expected)
    other = "none" if approximate == "tanh" else "tanh"
    unlike = PackedLinear(nn.Linear(9, 9), nn.GELU(other))
    like = PackedLinear(nn.Linear(9, 9), nn.GELU(approximate))
    like.load_state_dict(unlike.state_dict())
    like._weight = unlike._weight
    assert not torch.equal(like(3 * x), unlike(3 * x)), "the two ways differ"


def test_joined_layers_give_their_outputs_one_after_the_other() -> None:
    layers = [nn.Linear(6, size) for size in (3, 8, 1)]
    one, x = joined(layers), random(4, 6)
    assert (one.in_features, one.out_features) == (6, 12)
    assert close(one(x), torch.cat([layer(x) for layer in layers], dim=-1))


def test_a_weight_makes_a_layer_without_bias() -> None:
    weight, x = random(5, 3), random(2, 3)
    assert torch.equal(of_weight(weight)(x), x @ weight.T)


def test_what_cannot_be_packed_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    half = nn.Sequential(nn.Linear(3, 3, dtype=torch.bfloat16))
    pack(half)
    assert isinstance(half[0], nn.Linear)
    monkeypatch.setattr(linear.torch.backends.mkldnn, "is_available", lambda: False)
    whole = nn.Sequential(nn.Linear(3, 3))
    pack(whole)
    assert isinstance(whole[0], nn.Linear)
