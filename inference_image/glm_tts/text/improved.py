"""Normalisation that repairs what the reference gets wrong.

The same result in shape (lower case, words for numbers and symbols, plain punctuation), reached by
own rules. Each sentence is read in its own language: Chinese if it has a Chinese character or a
phoneme in it, else English. Phonemes written by the client pass through untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from glm_tts.text import chinese, english, markup
from glm_tts.text.errors import TextError, nothing_to_speak
from glm_tts.text.packages import load
from glm_tts.text.phonemes import TOKEN, PhonemeTables

# Stand for phonemes while a text is rewritten; such characters are cleaned out of the text first.
_FIRST_STAND_IN = 0xF0000
_MAX_STAND_INS = 0xFFFD
_STAND_IN = re.compile("[\U000f0000-\U000ffffd]")

_HAN_RANGE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN = re.compile(f"[{_HAN_RANGE}\U000f0000-\U000ffffd]")
_SENTENCE_END = re.compile(
    r"(?<=[。！？；\n])|(?<=[!?])(?![!-~])|(?<=\.) (?=[^\W\d_])" + f"|(?<=[{_HAN_RANGE}][!?])"
)

_TLD = "com|org|net|edu|gov|io|ai|cn|co|app|dev|info|me|tv|uk|de|jp|hk|tw|us|eu"
_MAIL = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}"
_LINK = (
    "(?:https?|ftp)://[^\\s<>\"'，。！？；：、（）《》“”\u3400-\u9fff\U000f0000-\U000ffffd]{1,2000}"
    rf"|(?:[A-Za-z0-9][A-Za-z0-9-]{{0,62}}\.){{1,4}}(?:{_TLD})(?![A-Za-z0-9-])"
    r"(?:/[A-Za-z0-9._~/-]{0,500})?(?:[?#][\w=&%.~/-]{0,500})?"
)
_ADDRESS = re.compile(f"<?(?<![A-Za-z0-9._%+@-])({_MAIL}|{_LINK})>?")


class ImprovedNormaliser:
    """Text to speakable words; raises `TextError` where there is nothing to say."""

    def __init__(self, tables: PhonemeTables) -> None:
        self._tables = tables

    def __call__(self, text: str) -> str:
        if not text.strip():
            raise TextError("The text is empty: send a word to speak.", code="empty_text")
        text, tokens = _set_aside_tokens(markup.clean(text))
        text = markup.plain(text)
        default = bool(_HAN.search(text))
        spoken = [self._sentence(s, default) for s in _SENTENCE_END.split(text)]
        text = _tidy("".join(spoken))
        if not any(character.isalnum() or _HAN.match(character) for character in text):
            raise nothing_to_speak()
        return _STAND_IN.sub(lambda m: tokens[ord(m[0]) - _FIRST_STAND_IN], finish(text))

    def _sentence(self, sentence: str, default: bool) -> str:
        if _HAN.search(sentence) or (default and not re.search("[A-Za-z]", sentence)):
            sentence = _addresses(self._simplified(sentence), chinese.address_in_words)
            sentence = re.sub(
                f"(?<=[{_HAN_RANGE}]) (?=\\d)|(?<=\\d) (?=[{_HAN_RANGE}])", "", sentence
            )
            return _chinese_marks(chinese.in_words(sentence)).lower()
        sentence = _addresses(sentence, english.address_in_words)
        return f" {_english_marks(english.in_words(sentence)).lower()} "

    def _simplified(self, text: str) -> str:
        text = self._tables.respell(text)
        return self._converter.convert(text)

    @cached_property
    def _converter(self) -> Any:
        """Traditional characters to simplified ones, which the model was trained on."""
        return load("opencc", "opencc", "Chinese text").OpenCC("t2s")


def finish(text: str) -> str:
    """The text with an end: a question or exclamation mark stays, anything else is a full stop."""
    text = text.strip()
    if text.endswith(tuple("。.？?！!")):
        return text
    chinese_text = _HAN.search(text) or TOKEN.search(text)
    return text.rstrip("，,：:；;、 ") + ("。" if chinese_text else ".")


def _set_aside_tokens(text: str) -> tuple[str, list[str]]:
    tokens: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        tokens.append(match.group())
        return chr(_FIRST_STAND_IN + len(tokens) - 1)

    if len(TOKEN.findall(text)) > _MAX_STAND_INS:
        raise TextError(
            f"The text has more than {_MAX_STAND_INS} phonemes: split it.", code="too_many_phonemes"
        )
    return TOKEN.sub(stand_in, text), tokens


def _addresses(text: str, speak: Callable[[str], str]) -> str:
    """Web and mail addresses in words, without scheme, query and fragment."""

    def said(match: re.Match[str]) -> str:
        address = re.sub("^[a-z]+://", "", match[1])
        end = re.search(r"[.,!?;:)]*$", address)
        tail = end.group() if end else ""
        address = re.split("[?#]", address.removesuffix(tail))[0].rstrip("/")
        return f" {speak(address)} {tail}"

    return _ADDRESS.sub(said, text)


_QUOTES = dict.fromkeys(map(ord, '"“”„«»‹›「」『』《》〈〉`\\·•'))
_DROPPED = re.compile(r"[_|^~#\[\]{}【】()（）<>=]+")


def _chinese_marks(text: str) -> str:
    text = _shared_marks(text).translate(_QUOTES)
    text = re.sub("[：；、]", "，", text).replace("\n", "。")
    text = re.sub("[^\\w\\s，。！？,.!?;:'\U000f0000-\U000ffffd]|_", " ", text)
    return re.sub(r"\s?([,.!?;:])\s?", _mark_in_chinese, text)


def _mark_in_chinese(match: re.Match[str]) -> str:
    """An ASCII mark stays between English words, and is a Chinese one elsewhere."""
    start, end = match.span()
    around = match.string[max(start - 1, 0) : start] + match.string[end : end + 1]
    if len(around) == 2 and around.isascii() and around[0].isalnum() and around[1].isalpha():
        return f"{match[1]} "
    return {".": "。", "!": "！", "?": "？"}.get(match[1], "，")


def _english_marks(text: str) -> str:
    text = _shared_marks(text).translate(_QUOTES)
    text = text.translate(str.maketrans("，。！？：；、", ",.!?:;,")).replace("\n", ". ")
    text = " ".join(re.sub(r"[^\w\s.,!?':;]|_", " ", text).split())
    return re.sub(r" ?([.,?!:;]) ?", r"\1 ", text)


def _shared_marks(text: str) -> str:
    """Pauses for brackets, dashes and dots; apostrophes only within words."""
    text = re.sub("[‘’′]", "'", re.sub(" {2,}", " ", text))
    text = re.sub(r"(?<![A-Za-z])'|'(?![A-Za-z])", "", text)
    text = re.sub(r"(?<=[A-Za-z0-9])\(([A-Za-z0-9]{1,3})\)", r" \1", text)
    text = re.sub(r"[(（\[【{][^\S\n]*|[^\S\n]*[)）\]】}]|[—―]+|-{2,}| - |…+|\.{2,}", "，", text)
    text = re.sub("(?<=[A-Za-z])-(?=[A-Za-z0-9])", " ", text).replace("-", "")
    return _DROPPED.sub(" ", text)


_MARKS = "？?！!。.；;：:，,"
_MARK_RUN = re.compile(f"[{_MARKS}][{_MARKS}\\s]*")
_CHINESE_SIDE = f"{_HAN_RANGE}\U000f0000-\U000ffffd。？！，"


def _tidy(text: str) -> str:
    """Of several marks the one that says most, no mark in front, spaces only between words."""
    text = _MARK_RUN.sub(_strongest, text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(f"(?<=[{_CHINESE_SIDE}]) | (?=[{_CHINESE_SIDE}])", "", text)
    return text.lstrip(_MARKS + " ").rstrip()


def _strongest(run: re.Match[str]) -> str:
    """The strongest mark, in the script of its first use."""
    mark = min("".join(run.group().split()), key=lambda mark: _MARKS.index(mark) // 2)
    return f"{mark} " if mark.isascii() else mark
