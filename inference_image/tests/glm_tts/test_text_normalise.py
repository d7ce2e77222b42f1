"""Normalisation, case by case from `normalisation_cases.tsv`, and over generated text."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.text import PhonemeTables, TextError
from glm_tts.text.exact import ExactNormaliser
from glm_tts.text.improved import ImprovedNormaliser, finish

TABLES = PhonemeTables(spellings={"噢": "哦", "欸": "诶"})
Case = tuple[str, str, str]


def _cases() -> list[Case]:
    lines = (Path(__file__).parent / "normalisation_cases.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in lines.split("\n") if line and not line.startswith("#"))
    return [(mode, text, spoken) for mode, text, spoken in rows]


CASES = _cases()


@cache
def _normaliser(mode: str) -> Callable[[str], str]:
    return ExactNormaliser(TABLES) if mode == "exact" else ImprovedNormaliser(TABLES)


@pytest.mark.parametrize(("mode", "text", "spoken"), CASES)
def test_a_text_is_said_as_written_down_beforehand(mode: str, text: str, spoken: str) -> None:
    normalise = _normaliser(mode)
    if spoken.startswith("!"):
        with pytest.raises(TextError) as refusal:
            normalise(text)
        assert refusal.value.code == spoken.removeprefix("!")
    else:
        assert normalise(text) == spoken


def test_there_are_cases_enough_and_none_twice() -> None:
    assert len(CASES) >= 300
    assert len({case[:2] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "text",
    [
        *("气温-3.5℃", "今天是2024-05-01", "电话010-62334455", "你好！", "人<|SH|><|EN1|>果"),
        *("他说Hello, world然后走了", "this — that"),
    ],
)
def test_the_improved_mode_differs_where_the_reference_is_wrong(text: str) -> None:
    assert _normaliser("improved")(text) != _normaliser("exact")(text)


LIKELY = st.sampled_from(
    [
        *("你好", "今天", "hello", "The", "3", "2.50", "1,234", "-7", "2024-05-01", "12:30", "$5"),
        *("50%", "℃", "kg", "km/h", "1/2", "10^5", "²", "<b>", "</b>", "**", "# ", "- ", "|", "`"),
        *(
            "<|SH|>",
            "<|EN1|>",
            "😀",
            "http://a.com",
            "a@b.com",
            "\n",
            " ",
            "…",
            "——",
            "。",
            "!",
            "?",
        ),
        *(
            "(",
            "）",
            "“",
            "'",
            "&amp;",
            "<!--",
            "①",
            "α",
            "第",
            "年",
            "月",
            "~",
            "=",
            "+",
            "*",
            "_",
        ),
    ]
)
TEXTS = st.lists(st.one_of(LIKELY, st.text(max_size=4)), max_size=12).map("".join)


def _said_or_refused(text: str) -> tuple[str, str | None]:
    try:
        return _normaliser("improved")(text), None
    except TextError as refusal:
        return "", refusal.code


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_is_said_in_words_or_refused_as_unspeakable(text: str) -> None:
    spoken, code = _said_or_refused(text)
    assert code in {None, "empty_text", "nothing_to_speak"}
    if code is not None:
        return
    words = re.sub(r"<\|[^<>|\s]+\|>", "", spoken)
    assert not re.search(r"[^\w ，。！？,.!?;:']|[0-9_\U000f0000-\U000ffffd]", words)
    assert spoken[-1] in "。.？?！!"
    assert not re.search("[。.？?！!，,；;：:]{2}", spoken)
    assert spoken == finish(spoken)


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_any_text_in_the_reference_s_way_ends_as_a_sentence(text: str) -> None:
    try:
        spoken = _normaliser("exact")(text)
    except Exception:  # whatever the reference raises; the front end names it
        return
    assert spoken[-1] in "。.？?"


REPEATED = [
    *("1", "1,111", "1.", "1-", "1 ", "1/", "1:", "1+", "~1", "2024-", "$1", "a", "a.", "a@", "x^"),
    *("-", "=", "*", "#", "!", "\n- ", "½", "<a b=", "<!--", "[a](", "**a", " :)", "<|SH|>"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", REPEATED)
def test_a_long_repetitive_text_does_not_hang(piece: str) -> None:
    """Rules are linear in the length of a text: one that is not would reach the limit here."""
    text = "中" + piece * (100_000 // len(piece)) + "x"
    assert _normaliser("improved")(text).endswith(("。", "！"))
