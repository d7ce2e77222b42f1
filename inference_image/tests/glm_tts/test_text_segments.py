"""Cutting a text into segments: the reference's rule, its fault, and what replaces it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.text.segments import MAX_WEIGHT, split, split_as_reference, syllables, weight

BOTH = pytest.mark.parametrize("cut", [split, split_as_reference])


@BOTH
def test_a_short_text_is_one_segment(cut) -> None:
    assert cut("你好，世界。") == ["你好，世界。"]
    assert cut("") == []


@BOTH
def test_it_is_cut_at_the_first_mark_from_thirty_on(cut) -> None:
    text = "一" * 20 + "，" + "二" * 8 + "，" + "三" * 5 + "。"
    # 20 + 1 + 8 + 1 = 30: the second comma is the first mark that reaches the least weight.
    assert cut(text) == ["一" * 20 + "，" + "二" * 8 + "，", "三" * 5 + "。"]
    shorter = text.replace("二" * 8, "二" * 7)
    assert cut(shorter) == [shorter]


@BOTH
def test_it_is_cut_at_sixty_characters_where_there_is_no_mark(cut) -> None:
    assert cut("一" * 130) == ["一" * 60, "一" * 60, "一" * 10]


@BOTH
def test_no_segment_begins_with_a_mark(cut) -> None:
    assert cut("一" * 60 + "。" + "二" * 5)[0] == "一" * 60 + "。"


@BOTH
def test_an_english_syllable_weighs_seven_tenths(cut) -> None:
    # banana has three syllables, 2.1; the comma makes the first thirteen 28.3, fourteen 30.4.
    text = "banana " * 13 + ", " + "banana, banana."
    assert cut("banana " * 13 + ", rest.") == ["banana " * 13 + ", rest."]
    assert cut(text)[0] == "banana " * 13 + ", banana, "


@pytest.mark.parametrize(
    ("word", "count"),
    [
        *(("cat", 1), ("banana", 3), ("the", 1), ("make", 1), ("being", 1), ("hmm", 1), ("e", 1)),
        *(("syllable", 2), ("AREA", 2)),
    ],
)
def test_syllables_are_groups_of_vowels_without_a_final_e(word: str, count: int) -> None:
    assert syllables(word) == count


LONG_ENGLISH = "understanding " * 40


def test_the_reference_runs_off_the_end_of_long_english_without_marks() -> None:
    with pytest.raises(IndexError):
        split_as_reference(LONG_ENGLISH)


def test_long_english_without_marks_is_cut_between_words() -> None:
    segments = split(LONG_ENGLISH)
    assert "".join(segments) == LONG_ENGLISH
    assert all(re.fullmatch("(understanding )+", segment) for segment in segments)
    # four syllables, 2.8: twenty one words weigh 58.8.
    assert [segment.count("u") for segment in segments] == [21, 19]


def test_a_word_longer_than_any_is_cut_too() -> None:
    assert max(map(len, split("ba" * 500))) <= 200


def test_phonemes_of_one_character_stay_together() -> None:
    text = "<|SH|><|EN1|>" * 100
    segments = split(text)
    assert "".join(segments) == text
    assert all(re.fullmatch(r"(<\|SH\|><\|EN1\|>)+", segment) for segment in segments)
    assert [segment.count("SH") for segment in segments] == [60, 40]


def test_the_reference_takes_phonemes_apart() -> None:
    assert not all(s.startswith("<|SH") for s in split_as_reference("<|SH|><|EN1|>" * 100))


UNITS = st.sampled_from(
    [
        "中",
        "国",
        "hello ",
        "a",
        "don't ",
        "，",
        "。",
        ". ",
        "! ",
        " ",
        "<|SH|>",
        "<|EN1|>",
        "3",
        "-",
    ]
)


@settings(deadline=None)
@given(st.lists(UNITS, max_size=300).map("".join))
def test_nothing_is_lost_and_no_segment_is_empty_or_too_heavy(text: str) -> None:
    segments = split(text)
    assert "".join(segments) == text
    assert all(segments)
    for segment in segments:
        body = re.sub(r"[，。.! ]+$", "", segment)
        units = re.findall(r"<\|\w+\|>|[a-z'-]+|[^\sa-z'-]", body)
        assert weight(units) <= MAX_WEIGHT + 1
