from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_server.engine import UnspeakableTextError, Voice
from speech_server.text import check_text, foreign_characters

ENGLISH = Voice("heart", "English", frozenset({"LATIN"}))
LATIN = frozenset({"LATIN"})


@pytest.mark.parametrize(
    ("refused", "code", "permitted"),
    [
        ("", "empty_text", "a"),
        (" \n\t ", "empty_text", " \n\t a"),
        ("😀🎉", "nothing_to_speak", "Party 😀🎉"),
        ("…!?—", "nothing_to_speak", "Well…!?—"),
        ("你好", "unsupported_characters", "Ni hao"),
        ("Hello 世界", "unsupported_characters", "Hello world"),
        ("Привет", "unsupported_characters", "Privet"),
        ("Ω", "unsupported_characters", "5 Ohm"),
        ("٣ apples", "unsupported_characters", "3 apples"),
        ("мир peace", "unsupported_characters", "peace"),
        ("a" * 21, "text_too_long", "a" * 20),
    ],
)
def test_a_text_that_cannot_be_spoken_is_refused_and_its_twin_is_not(
    refused: str, code: str, permitted: str
) -> None:
    with pytest.raises(UnspeakableTextError) as caught:
        check_text(refused, ENGLISH, 20)
    assert caught.value.code == code
    assert check_text(permitted, ENGLISH, 20) == permitted


def test_a_refusal_names_the_characters_and_the_language() -> None:
    with pytest.raises(UnspeakableTextError) as caught:
        check_text("Say 你好你", ENGLISH, 100)
    assert "'heart' speaks English" in str(caught.value)
    assert "'你' (U+4F60), '好' (U+597D):" in str(caught.value)


def test_a_refusal_of_many_characters_stays_short() -> None:
    with pytest.raises(UnspeakableTextError, match="and 92 more"):
        check_text("".join(chr(0x4E00 + i) for i in range(100)), ENGLISH, 200)


def test_a_voice_that_reads_a_script_is_given_it() -> None:
    chinese = Voice("mei", "Chinese", frozenset({"LATIN", "CJK"}))
    assert check_text("你好, world", chinese, 100) == "你好, world"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Ｈｅｌｌｏ，　１２", "Hello, 12"),
        ("cafe\u0301", "café"),
        ("5 µm, 2ª, x²", "5 µm, 2ª, x²"),
        ("Hawaiʻi", "Hawaiʻi"),
    ],
)
def test_text_is_brought_into_the_form_that_engines_know(text: str, spoken: str) -> None:
    assert check_text(text, ENGLISH, 100) == spoken


@given(st.text())
def test_any_text_is_either_refused_or_has_something_to_speak(
    text: str,
) -> None:
    try:
        spoken = check_text(text, ENGLISH, 50)
    except UnspeakableTextError:
        return
    assert text.strip()
    assert len(text) <= 50
    assert not foreign_characters(spoken, LATIN)
    assert any(unicodedata.category(character)[0] in "LN" for character in spoken)


@given(st.text(st.characters(codec="ascii"), max_size=50), st.sampled_from("aZ7"))
def test_every_ascii_text_with_a_letter_or_digit_is_spoken(text: str, word: str) -> None:
    assert check_text(text + word, ENGLISH, 51) == text + word


@given(st.sampled_from("你ひカ안Жשع"), st.text(st.characters(codec="ascii"), max_size=50))
def test_no_foreign_letter_hides_in_an_english_text(letter: str, text: str) -> None:
    with pytest.raises(UnspeakableTextError) as caught:
        check_text(f"a{text}{letter}", ENGLISH, 100)
    assert caught.value.code == "unsupported_characters"
