"""The flow: its configuration, and its sampling against the literal loop, alone and in batches."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.flow import (
    EarlierPass,
    Flow,
    FlowConfig,
    FlowItem,
    FlowResult,
    block_mask,
    time_grid,
)
from inference_image.tests.glm_tts import literal_flow
from inference_image.tests.glm_tts.test_dit import SMALL, Operations, close, random, randomise

CONFIG = FlowConfig(estimator=SMALL)
LITERAL_SIZES = {"heads": SMALL.heads, "groups": SMALL.position_groups}
MEL_TOLERANCE = 1e-4
PUBLISHED = {
    "spkr_emb_adaLN": True,
    "speech_token_cfg": False,
    "remove_spkr_concat_condition": True,
    "mel_dim": 80,
    "mel_framerate": 50,
    "input_frame_rate": 25,
}


def make_flow() -> Flow:
    flow = Flow(CONFIG)
    randomise(flow)
    return flow


FLOW = make_flow()
FUSED = copy.deepcopy(FLOW)
FUSED.fuse()


def make_item(ids: int, prompt_frames: int, seed: int = 0) -> FlowItem:
    generator = torch.Generator().manual_seed(seed)
    frames = CONFIG.frames(ids)
    return FlowItem(
        speech_ids=torch.randint(0, SMALL.speech_vocabulary, (ids,), generator=generator),
        prompt_mel=random(prompt_frames, 80, seed=seed + 1),
        speaker=random(SMALL.speaker_dim, seed=seed + 2),
        noise=random(frames, 80, seed=seed + 3),
    )


def literal(item: FlowItem, **options: Any) -> FlowResult:
    state = dict(FLOW.state_dict())
    mel, x = literal_flow.sample(
        state,
        item.speech_ids,
        item.prompt_mel,
        item.speaker,
        item.noise,
        **LITERAL_SIZES,
        **options,
    )
    return FlowResult(mel, x)


def same(result: FlowResult, expected: FlowResult, tolerance: float = MEL_TOLERANCE) -> bool:
    return close(result.mel, expected.mel, tolerance) and close(result.x, expected.x, tolerance)


def test_the_published_arguments_make_the_default_configuration() -> None:
    assert FlowConfig.from_arguments(PUBLISHED) == FlowConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spkr_emb_adaLN": False}, "spkr_emb_adaLN is False, and only True is supported"),
        ({"speech_token_cfg": True}, "speech_token_cfg is True, and only False is supported"),
        ({"t_scheduler": "linear"}, "t_scheduler is 'linear', and only 'cosine' is supported"),
        ({"depht": 18}, "depht is unknown"),
        ({"mel_framerate": 0}, "mel_framerate is 0, not a whole number above 0"),
        ({"input_frame_rate": "fast"}, "input_frame_rate is 'fast', not a whole number above 0"),
    ],
)
def test_arguments_of_another_model_are_refused_by_name(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FlowConfig.from_arguments({**PUBLISHED, **change})


@pytest.mark.parametrize(
    "name",
    sorted(PUBLISHED.keys() - {"mel_dim"}),
)
def test_an_argument_whose_default_was_another_model_must_be_there(name: str) -> None:
    rest = {key: value for key, value in PUBLISHED.items() if key != name}
    with pytest.raises(ValueError, match=f"{name} is missing"):
        FlowConfig.from_arguments(rest)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)big_model.*input_frame_rate is missing.*a_new_one"):
        FlowConfig.from_arguments(
            {**{k: v for k, v in PUBLISHED.items() if k != "input_frame_rate"}}
            | {"big_model": True, "a_new_one": 1}
        )


def test_frames_are_truncated_in_floating_point() -> None:
    short = [ids for ids in range(1, 250) if CONFIG.frames(ids) == 2 * ids - 1]
    assert short[:9] == [29, 57, 58, 113, 114, 115, 116, 201, 203]
    assert all(CONFIG.frames(ids) in (2 * ids, 2 * ids - 1) for ids in range(1, 5000))
    assert len(short) == 15  # doubling, or dividing integers, would shorten none


def test_the_time_grid_is_a_cosine() -> None:
    grid = time_grid(10)
    for step, (time, length) in enumerate(grid):
        assert time == pytest.approx(1 - math.cos(math.pi / 2 * step / 10), abs=1e-6)
        end = 1 - math.cos(math.pi / 2 * (step + 1) / 10)
        assert time + length == pytest.approx(end, abs=1e-6)
    assert abs(grid[5][0] - 0.5) > 0.1


@pytest.mark.parametrize(("ids", "prompt_frames"), [(1, 1), (12, 7), (29, 20), (15, 0)])
def test_a_sample_is_that_of_the_literal_loop(ids: int, prompt_frames: int) -> None:
    item = make_item(ids, prompt_frames)
    expected = literal(item)
    assert expected.mel.shape == (CONFIG.frames(ids) - prompt_frames, 80)
    assert same(FLOW.sample_exact(item), expected)
    assert same(FLOW.sample([item])[0], expected)
    assert same(FUSED.sample([item])[0], expected)


def test_an_odd_prompt_leaves_one_frame_more() -> None:
    prompt_ids, generated_ids = 19, 6
    result = FUSED.sample([make_item(prompt_ids + generated_ids, prompt_frames=37)])[0]
    assert len(result.mel) == 2 * generated_ids + 1


def test_of_a_prompt_longer_than_the_whole_the_last_frames_are_used() -> None:
    item = make_item(5, 4)
    long = replace(item, prompt_mel=random(14, 80))
    cut = replace(item, prompt_mel=long.prompt_mel[-10:])
    for flow in (FLOW, FUSED):
        assert close(flow.sample([long])[0].x, flow.sample([cut])[0].x)
        assert flow.sample([long])[0].mel.shape == (0, 80)
    assert close(FLOW.sample_exact(long).x, FLOW.sample_exact(cut).x)


def test_speech_ids_are_kept_in_the_unconditional_half() -> None:
    """Without prompt and speaker both halves are the same, so guidance changes nothing."""
    item = make_item(8, 6)
    item = replace(
        item,
        prompt_mel=torch.zeros(6, 80),
        speaker=torch.zeros(SMALL.speaker_dim),
    )
    unguided = Flow(replace(CONFIG, guidance=0.0))
    unguided.load_state_dict(FLOW.state_dict())
    assert close(FLOW.sample([item])[0].mel, unguided.sample([item])[0].mel, MEL_TOLERANCE)
    other = replace(item, prompt_mel=random(6, 80))
    assert not close(FLOW.sample([other])[0].mel, unguided.sample([other])[0].mel, 1e-2)


def test_the_speaker_counts_by_its_direction_only() -> None:
    item = make_item(8, 6)
    longer = replace(item, speaker=item.speaker * 7)
    assert same(FUSED.sample([longer])[0], FUSED.sample([item])[0])


def test_the_prompt_is_not_clamped_to_its_own_mel() -> None:
    item = make_item(8, 6)
    end, _ = FUSED.integrate(FUSED.prepare([item]))
    assert not close(end[0, :6], item.prompt_mel, 0.1)


def test_noise_of_another_length_is_refused() -> None:
    item = replace(make_item(29, 5), noise=random(58, 80))
    message = r"noise is \[58, 80\], and 29 speech ids need \[57, 80\]"
    for sample in (FLOW.sample_exact, lambda item: FLOW.sample([item])):
        with pytest.raises(ValueError, match=message):
            sample(item)
    with pytest.raises(ValueError, match="an item has 60 frames, and the batch only 40"):
        FLOW.sample([make_item(30, 5)], frames=40)


items_of_any_length = st.lists(
    st.tuples(st.integers(1, 34), st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=4
)


@settings(max_examples=15, deadline=None)
@given(sizes=items_of_any_length, spare=st.none() | st.integers(0, 9), data=st.data())
def test_a_batch_gives_what_each_of_its_items_gives_alone(
    sizes: list[tuple[int, int, int]], spare: int | None, data: st.DataObject
) -> None:
    items = []
    for seed, (ids, prompt_frames, kept) in enumerate(sizes):
        item = make_item(ids, prompt_frames, seed=10 * seed)
        if data.draw(st.booleans()):
            x = random(10, item.noise.shape[0], 80, seed=90 + seed)
            item = replace(item, earlier=EarlierPass(x, kept))
        items.append(item)
    longest = max(len(item.noise) for item in items)
    frames = None if spare is None else longest + spare
    together = FUSED.sample(items, frames=frames)
    for item, result in zip(items, together, strict=True):
        assert same(result, FUSED.sample([item])[0])
        assert same(result, FLOW.sample_exact(item))


def test_padding_the_published_way_would_change_the_shorter_item() -> None:
    short, long = make_item(6, 3), make_item(20, 3, seed=10)
    alone = FUSED.sample([short])[0]
    batch = FUSED.prepare([short, long])
    unmasked = replace(batch, frame_mask=None)
    beside_keys_only = FUSED.results([short, long], *FUSED.integrate(unmasked))[0]
    assert not same(beside_keys_only, alone, 1e-3)
    unmasked = replace(batch, attention_mask=None)
    beside_frames_only = FUSED.results([short, long], *FUSED.integrate(unmasked))[0]
    assert not same(beside_frames_only, alone, 1e-3)
    assert same(FUSED.results([short, long], *FUSED.integrate(batch))[0], alone)


def test_an_earlier_pass_is_followed_frame_by_frame_at_every_step() -> None:
    first, longer = make_item(10, 6), make_item(16, 6)
    earlier = FLOW.sample_exact(first)
    item = replace(longer, earlier=EarlierPass(earlier.x, 13))
    expected = literal(longer, earlier=earlier.x, override_frames=13)
    assert same(FLOW.sample_exact(item), expected)
    result = FUSED.sample([item])[0]
    assert same(result, expected)
    assert torch.equal(result.x[:, :13], earlier.x[:, :13])
    assert not same(result, literal(longer), 1e-2)


def test_of_an_earlier_pass_no_more_frames_are_taken_than_it_has() -> None:
    earlier = FLOW.sample_exact(make_item(5, 2))
    longer = make_item(9, 2)
    kept = replace(longer, earlier=EarlierPass(earlier.x, 10))
    more = replace(longer, earlier=EarlierPass(earlier.x, 99))
    assert same(FUSED.sample([more])[0], FUSED.sample([kept])[0])
    assert same(FLOW.sample_exact(more), FLOW.sample_exact(kept))


def literal_block_mask(sizes: list[int], frames: int) -> torch.Tensor:
    """Row by row and column by column, as the rule is written down."""
    mask = torch.zeros(frames, frames, dtype=torch.bool)
    start, block = 0, 0
    while start < frames:
        size = sizes[min(block, len(sizes) - 1)]
        m = size // 2 if size <= 172 else math.floor(size / 1.5)
        for i in range(size):
            for column in range(frames):
                if start + i < frames and column < start + size + max(0, m - (size - 1 - i)):
                    mask[start + i, column] = True
        start, block = start + size, block + 1
    return mask


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    frames=st.integers(1, 90),
)
def test_the_block_mask_follows_its_rule(sizes: list[int], frames: int) -> None:
    assert torch.equal(block_mask(sizes, frames), literal_block_mask(sizes, frames))


def test_the_block_mask_looks_further_ahead_in_long_blocks() -> None:
    for size, ahead in ((172, 86), (173, 115)):
        mask = block_mask([size], 2 * size)
        assert int(mask[size - 1].sum()) == size + ahead
    assert torch.equal(block_mask([173, 9], 240), literal_block_mask([173, 9], 240))


@pytest.mark.parametrize("frames", [None, 40])
def test_each_item_of_a_batch_has_its_own_block_mask(frames: int | None) -> None:
    items = [make_item(16, 6), make_item(9, 4, seed=10), make_item(12, 5, seed=20)]
    masks = [block_mask([6, 10, 12], 32), block_mask([4, 7], 18), None]
    items = [replace(item, attention_mask=mask) for item, mask in zip(items, masks, strict=True)]
    results = FUSED.sample(items, frames=frames)
    for item, mask, result in zip(items, masks, results, strict=True):
        assert same(result, literal(item, mask=mask))
        assert same(FLOW.sample_exact(item), literal(item, mask=mask))
        assert mask is None or not same(result, literal(item), 1e-2)


def test_kept_modulations_of_a_voice_replace_its_speaker() -> None:
    item = make_item(8, 6)
    kept = replace(
        item,
        modulations=FUSED.modulations(item.speaker),
        speaker=torch.full_like(item.speaker, math.nan),
    )
    assert torch.equal(FUSED.sample([kept])[0].mel, FUSED.sample([item])[0].mel)


def test_batches_of_one_size_differ_in_content_only() -> None:
    """So that a captured graph of one of them serves them all."""
    one = FUSED.prepare([make_item(16, 6), make_item(9, 0, seed=10)], frames=40)
    earlier = EarlierPass(random(10, 30, 80), 12)
    other_items = [replace(make_item(20, 11, seed=20), earlier=earlier), make_item(3, 6, seed=30)]
    other = FUSED.prepare(other_items, frames=40)
    assert [t.shape for t in one.tensors()] == [t.shape for t in other.tensors()]
    assert len(one.tensors()) == 9
    one.copy_(other)
    results = FUSED.results(other_items, *FUSED.integrate(one))
    for result, expected in zip(results, FUSED.sample(other_items), strict=True):
        assert same(result, expected)


def test_integrating_takes_the_same_operations_for_any_lengths_and_never_waits() -> None:
    seen = []
    earlier = EarlierPass(random(10, 30, 80), 12)
    for items in (
        [make_item(16, 6), make_item(9, 0, seed=10)],
        [replace(make_item(20, 11, seed=20), earlier=earlier), make_item(1, 1, seed=30)],
    ):
        batch = FUSED.prepare(items, frames=40)
        with Operations() as operations:
            FUSED.integrate(batch)
        assert operations.waits() == []
        seen.append(operations.seen)
    assert len(seen[0]) > 100
    assert seen[0] == seen[1]


def test_a_batch_of_equal_lengths_needs_no_mask() -> None:
    batch = FUSED.prepare([make_item(16, 6), make_item(16, 2, seed=10)])
    assert batch.frame_mask is None
    assert batch.attention_mask is None
    assert batch.earlier is None


def test_bfloat16_matmuls_stay_near_the_mel() -> None:
    flow = copy.deepcopy(FLOW)
    flow.fuse(torch.bfloat16)
    items = [make_item(12, 6), make_item(7, 3, seed=10)]
    for result, item in zip(flow.sample(items), items, strict=True):
        expected = FLOW.sample_exact(item).mel
        assert result.mel.dtype == torch.float32
        assert close(result.mel, expected, 0.1 * float(expected.abs().max()))
