"""Normalisation exactly as the reference does it, defects included.

Chinese and English go through WeTextProcessing's grammars; what stands around them is a sequence of
replacements whose order matters. Known defects, all of which `improved` repairs: the sign of a
temperature is lost, dates and phone numbers become subtractions, `<|SH|>` is read as "less than",
`!` never survives, and a text with nothing to say becomes a lone full stop.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from itertools import groupby
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from glm_tts.text.packages import load
from glm_tts.text.phonemes import PhonemeTables
from glm_tts.text.tables import SYMBOLS_OF_REFERENCE

_PURPOSE = "Exact normalisation"
_PUNCTUATION = "。？！；：、.?!;:，,"
_LINE_ENDS = frozenset(".!?;:：。！？；，")
_BRACKETS = "()（）【】「」`《》『』{}[]"
_HAN = re.compile("[\u4e00-\u9fff]")
# The look-behind keeps the search linear on long runs of digits, and finds the same place.
_POWER = re.compile(r"(-?(?<!\d)\d+(?:\.\d+)?)[*x×](\d+(?:\.\d+)?)\^(-?\d+(?:\.\d+)?)")
_ENGLISH_KEPT = re.compile(r"[^\w\s.,!?':;]")


class _Normaliser(Protocol):
    def normalize(self, input: str) -> str: ...


class ExactNormaliser:
    """`text_normalize` of the reference.

    The grammars load at a process's first text: the Chinese one is compiled then, which takes
    seconds.
    Exceptions are the reference's own: whoever calls decides what they mean.
    """

    def __init__(self, tables: PhonemeTables) -> None:
        self._tables = tables

    def __call__(self, text: str) -> str:
        text = _preprocess(text)
        spoken = self._chinese(text).lower() if _HAN.search(text) else self._english(text)
        return _finish(_tidy_punctuation(spoken))

    def _chinese(self, text: str) -> str:
        text = _power_in_words(text)
        text = re.sub(r"(?<=\d)\s*-\s*(?=\d)", "减", text).replace("-", "")
        text = re.sub(f"咯([{_PUNCTUATION}])", r"喽\1", text)
        text = _chinese_grammar().normalize(self._tables.respell(text))
        text = re.sub(r"(?<=\W)额(?=\W)", "呃", f" {text} ".replace("\\", ""))
        text = re.sub("[~～]+", "。", text)
        return _symbols_in_words(_multiply(text, "乘", "一二三四五六七八九十百千万亿").strip())

    def _english(self, text: str) -> str:
        text = _english_grammar().normalize(text.replace("'", "’"))
        text = _without(text, _BRACKETS)
        text = _multiply(text, "multiply", "0-9").replace("—", " ").replace("’", "'")
        text = _numbers_in_words(text)
        text = _ENGLISH_KEPT.sub("", re.sub(r"\s+", " ", text)).lower()
        text = re.sub(r"([.,!?':;])\1+", r"\1", text)
        return re.sub(r"\s*([.,?!':;])\s*", r"\1 ", text).strip()


@cache
def _chinese_grammar() -> _Normaliser:
    _quieten()
    grammar = load("tn.chinese.normalizer", "WeTextProcessing", _PURPOSE)
    # The package ships grammars compiled with other options; the new ones go elsewhere, since its
    # own folder may be read-only.
    with TemporaryDirectory(prefix="glm-tts-grammar-") as folder:
        return grammar.Normalizer(
            cache_dir=folder,
            overwrite_cache=True,
            remove_erhua=False,
            remove_interjections=False,
            full_to_half=True,
        )


@cache
def _english_grammar() -> _Normaliser:
    _quieten()
    return load("tn.english.normalizer", "WeTextProcessing", _PURPOSE).Normalizer()


@cache
def _inflection() -> Any:
    return load("inflect", "inflect", _PURPOSE).engine()


def _preprocess(text: str) -> str:
    emoji = load("emoji", "emoji", _PURPOSE)
    text = re.sub(r"^(\d+)\. ", r"\1。", text).replace("\\n", "\n")
    text = emoji.replace_emoji(_join_lines(text), replace="")
    return re.sub("(?<=[a-zA-Z])-(?=[a-zA-Z])", " ", text)


def _join_lines(text: str) -> str:
    lines = [_ended(line.strip()) for line in text.split("\n") if line.strip()]
    return ("" if _HAN.search("".join(lines)) else " ").join(lines)


def _ended(line: str) -> str:
    if line[-1] in _LINE_ENDS:
        return line
    return line + ("。" if _HAN.search(line) else ". ")


def _power_in_words(text: str) -> str:
    """3*10^5 as 三乘十的五次方; only the first in a text, as in the reference."""
    return _POWER.sub(
        lambda m: "{}乘{}的{}次方".format(*map(_chinese_number, m.groups())), text, count=1
    )


def _numbers_in_words(text: str) -> str:
    """English names of the digits that are left; ² and ① are digits too, and become "zero"."""
    runs = [(is_number, "".join(run)) for is_number, run in groupby(text, str.isdigit)]
    return "".join(_inflection().number_to_words(r) if is_number else r for is_number, r in runs)


def _chinese_number(digits: str) -> str:
    whole, fraction = str(float(digits)).split(".")
    if not fraction.strip("0"):
        return _chinese_integer(int(whole))
    spoken = _chinese_integer(int(whole)) if int(whole) else "零"
    return f"{spoken}点{''.join('零一二三四五六七八九'[int(digit)] for digit in fraction)}"


def _chinese_integer(number: int) -> str:
    """Place by place, every place above ten thousand with its whole name: 10000 to 110000 differ
    from how one says them (十一万 becomes 十万一万)."""
    if number <= 0:
        return "负" + _chinese_integer(-number) if number else "零"
    places = ["", "十", "百", "千", "万", "十万", "百万", "千万", "亿", "十亿", "百亿", "千亿"]
    spoken: list[str] = []
    place, last_place, zero_said = 0, "", False
    while number:
        number, digit = divmod(number, 10)
        name = places[place] if place < len(places) else ""
        if digit:
            spoken += (
                [name, "零一二三四五六七八九"[digit]] if name else ["零一二三四五六七八九"[digit]]
            )
            zero_said, last_place = False, name
        elif not zero_said and spoken and last_place not in ("万", "亿"):
            spoken.append("零")
            zero_said = True
        place += 1
    text = re.sub("^一十", "十", "".join(reversed(spoken)))
    return re.sub("零$", "", re.sub("零+", "零", text))


def _multiply(text: str, word: str, numbers: str) -> str:
    side = f"{numbers}a-zA-Z"
    pattern = (
        rf"(?<=[{side}])\s*\*\s*(?=[{side}])"
        rf"|(?<=[{side}]\))\s*\*\s*(?=[{side}])"
        rf"|(?<=[{side}])\s*\*\s*(?=\([{side}])"
        rf"|(?<=[{side}]\))\s*\*\s*(?=\([{side}])"
    )
    return re.sub(pattern, word, text).replace("*", "")


def _symbols_in_words(text: str) -> str:
    text = _without(text, _BRACKETS + "‘’").replace(" - ", "，").replace("——", "，")
    text = re.sub("[,:：;；、]+", "，", text)
    text = re.sub("[.…]+", "。", text)
    text = _without(text, "_·'\"‘’“”|")
    for symbol, words in SYMBOLS_OF_REFERENCE.items():
        text = text.replace(symbol, words)
    return text


def _tidy_punctuation(text: str) -> str:
    text = _without_spaces(text)
    text = re.sub(f"([{_PUNCTUATION}])\\1+", r"\1", text)
    text = re.sub(f"[{_PUNCTUATION}](?=[{_PUNCTUATION}])", "", text)
    return text.replace("#", "").replace("！", "。").replace("!", ".")


def _without_spaces(text: str) -> str:
    """No spaces but before an English letter or digit that follows one, or a mark."""
    return re.sub("(?<![a-zA-Z0-9.,!?;:]) +| +(?![a-zA-Z0-9])", "", re.sub(" +", " ", text))


def _finish(text: str) -> str:
    if text.endswith(("？", "?")):
        return text
    body = text[:-1] if text and text[-1] in _PUNCTUATION else text
    return body + ("。" if _HAN.search(text) else ".")


def _without(text: str, characters: str) -> str:
    return text.translate(dict.fromkeys(map(ord, characters)))


def _quieten() -> None:
    """Keep the grammar package from writing to the console: it does unless a handler is there."""
    logger = logging.getLogger("wetext")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
