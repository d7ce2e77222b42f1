"""How an utterance is cut into passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_tts.blocks import FRAMES_PER_ID, Blocks, Pass

_sizes = st.lists(st.integers(2, 60), min_size=1, max_size=5).map(tuple)


def _passes(blocks: Blocks, arrivals: list[int]) -> list[Pass]:
    """All passes over an utterance whose ids arrive in such portions."""
    made: list[Pass] = []
    ids = 0
    for number, portion in enumerate(arrivals):
        ids += portion
        while one := blocks.next(len(made), ids, ended=number == len(arrivals) - 1):
            made.append(one)
            if one.final:
                break
    return made


@given(_sizes, st.lists(st.integers(0, 90), min_size=1, max_size=8))
def test_passes_cover_an_utterance_and_depend_on_its_length_only(
    sizes: tuple[int, ...], arrivals: list[int]
) -> None:
    blocks = Blocks(sizes, fade_seconds=0)
    passes = _passes(blocks, arrivals)
    total = sum(arrivals)
    assert passes == _passes(blocks, [total])
    assert [one.final for one in passes] == [False] * (len(passes) - 1) + [True]
    assert passes[-1].ids == total
    assert passes[-1].stable_frames == total * FRAMES_PER_ID
    frames = [one.stable_frames for one in passes]
    assert frames == sorted(frames)
    for one in passes[:-1]:
        assert one.ids == blocks.end(one.index)
        ahead = one.ids * FRAMES_PER_ID - one.stable_frames
        assert ahead == blocks.size(one.index) // 2 * FRAMES_PER_ID


def test_the_first_block_is_spoken_as_soon_as_it_is_known_not_to_be_the_last() -> None:
    blocks = Blocks((10, 25, 50, 200))
    assert blocks.next(0, 10, ended=False) is None, "it may be the last"
    assert blocks.next(0, 11, ended=False) == Pass(0, ids=10, stable_frames=10, final=False)
    assert blocks.next(0, 10, ended=True) == Pass(0, ids=10, stable_frames=20, final=True)
    assert [blocks.end(index) for index in range(6)] == [10, 35, 85, 285, 485, 685]


def test_blocks_from_which_nothing_could_be_heard_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sizes: \[10, 1\], must be one or more numbers of at"):
        Blocks((10, 1))
    with pytest.raises(ValueError, match=r"sizes: \[\], must be"):
        Blocks(())
    with pytest.raises(ValueError, match=r"fade_seconds: 0\.25, must be 0 to 0\.2"):
        Blocks((10,), fade_seconds=0.25)
    assert Blocks((10,), fade_seconds=0.2).end(2) == 30
