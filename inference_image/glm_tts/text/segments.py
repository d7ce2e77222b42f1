"""Cutting a text into segments that the language model speaks one at a time.

A unit is a Chinese character, an English word or a single symbol; a space belongs to the unit
before it. Units weigh as much as they take to say: an English syllable 0.7 of a Chinese character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

PUNCTUATION = frozenset("。？！；：、.?!;:，,")
MIN_WEIGHT = 30
"""A segment ends at the first punctuation mark from this weight on."""
MAX_WEIGHT = 60
"""A segment heavier than this is cut without a punctuation mark."""

_SYLLABLE_WEIGHT = 0.7
_VOWELS = re.compile(r"(?!e$)[aeiouy]+", re.IGNORECASE)
_TOKEN = re.compile(r"<\|[^<>|\s]+\|>")
_MAX_WORD = 40
# `<|SH|><|EN1|>`: an initial and a final make one character's sound.
_TOKEN_WEIGHT = 0.5


def split_as_reference(
    text: str, min_weight: float = MIN_WEIGHT, max_weight: int = MAX_WEIGHT
) -> list[str]:
    """Segments exactly as the reference cuts them.

    Its hard cut counts *units* where its test counts *weight*, so a long unpunctuated English
    sentence, heavier than 60 with fewer than 61 units, runs off the end: IndexError, as there.
    """
    segments: list[str] = []
    for sentence in _sentences(_reference_units(text), min_weight):
        while weight(sentence) > max_weight:
            cut = max_weight + (sentence[max_weight].strip() in PUNCTUATION)
            segments.append("".join(sentence[:cut]))
            sentence = sentence[cut:]
        if sentence:
            segments.append("".join(sentence))
    return segments


def split(text: str, min_weight: float = MIN_WEIGHT, max_weight: float = MAX_WEIGHT) -> list[str]:
    """Segments of any text: cut at punctuation from `min_weight` on, else before `max_weight`.

    Never cuts within a phoneme token, between the two tokens of one character, or before a
    punctuation mark.
    """
    segments: list[str] = []
    for sentence in _sentences(_units(text), min_weight):
        start, total = 0, 0.0
        for index, unit in enumerate(sentence):
            total += unit_weight(unit)
            if total > max_weight and index > start and _may_start(sentence, index):
                segments.append("".join(sentence[start:index]))
                start, total = index, unit_weight(unit)
        segments.append("".join(sentence[start:]))
    return segments


def weight(units: Sequence[str]) -> float:
    return sum(map(unit_weight, units))


def unit_weight(unit: str) -> float:
    word = unit.strip()
    if word.isascii() and word.isalpha():
        return syllables(word) * _SYLLABLE_WEIGHT
    return _TOKEN_WEIGHT if _TOKEN.fullmatch(word) else 1.0


def syllables(word: str) -> int:
    """Syllables by groups of vowels, a final e left out: what the reference falls back to.

    The reference looks a word up in the CMU dictionary first, whose usual package is GPL.
    """
    return max(1, len(_VOWELS.findall(word)))


def _sentences(units: Sequence[str], min_weight: float) -> list[list[str]]:
    sentences: list[list[str]] = []
    current: list[str] = []
    total = 0.0
    for unit in units:
        current.append(unit)
        total += unit_weight(unit)
        if unit.strip() in PUNCTUATION and total >= min_weight:
            sentences.append(current)
            current, total = [], 0.0
    return [*sentences, current] if current else sentences


def _units(text: str) -> list[str]:
    units: list[str] = []
    end = 0
    for match in _TOKEN.finditer(text):
        units += [*_bounded(_reference_units(text[end : match.start()])), match.group()]
        end = match.end()
    return units + _bounded(_reference_units(text[end:]))


def _bounded(units: Sequence[str]) -> list[str]:
    """The units with words cut that are longer than any real one."""
    return [
        unit[start : start + _MAX_WORD]
        for unit in units
        for start in range(0, len(unit), _MAX_WORD)
    ]


def _may_start(units: Sequence[str], index: int) -> bool:
    unit, before = units[index], units[index - 1]
    if unit.strip() in PUNCTUATION:
        return False
    return not (_is_final(unit.strip()) and _TOKEN.fullmatch(before) and not _is_final(before))


def _is_final(unit: str) -> bool:
    return _TOKEN.fullmatch(unit) is not None and unit[-3].isdigit()


def _reference_units(text: str) -> list[str]:
    units: list[str] = []
    in_word = False
    for character in text:
        if character.isspace() and units:
            units[-1] += character
            in_word = False
        elif in_word and (_is_letter(character) or character in "'-"):
            units[-1] += character
        else:
            in_word = _is_letter(character)
            units.append(character)
    return units


def _is_letter(character: str) -> bool:
    return character.isalpha() and not _is_chinese(character)


def _is_chinese(character: str) -> bool:
    name = unicodedata.name(character, "")
    return "CJK" in name or "IDEOGRAPH" in name
