"""Phoneme control: which sounds a text is given, written as tokens such as `<|SH|><|EN1|>`.

Clients may write the tokens themselves, and in phoneme mode characters with more than one reading
are replaced by the sound that fits the context: longest matches of the model's replacement
dictionary first, then jieba's words and pypinyin's readings. Characters that the model reads well
on its own (`G2P_able_1word.json`) stay characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from glm_tts.text.errors import TextDataError, TextError
from glm_tts.text.packages import load
from glm_tts.text.tables import READINGS

_PURPOSE = "Phoneme mode"

TOKEN = re.compile(r"<\|([^<>|\s]{1,32})\|>")

# CJK radicals, unified and compatibility ideographs, and the extensions of the second plane on.
_CHINESE_RUN = re.compile(
    "([\u2e80-\u2eff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
    "\U00030000-\U000323af]+)"
)
# pypinyin reads these without a vowel, as no phoneme of the model does.
_RESPELT = str.maketrans("嗯呣", "恩母")

Syllable = tuple[str, str]
"""Initial ("" for none) and final with its tone: ("sh", "en1")."""


@dataclass(frozen=True)
class PhonemeTables:
    """The model's own tables for phonemes and spelling."""

    replacements: Mapping[str, str] = field(default_factory=dict)
    """Text to tokens, `{"弦": "<|X|><|IAN2|>"}`: applied before anything else."""
    kept: frozenset[str] = frozenset()
    """Characters that stay characters."""
    phonemes: frozenset[str] = frozenset()
    """Every token that the model knows: `<|SH|>`. Empty: whatever the tokenizer has."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """Characters written another way in every mode: `{"噢": "哦"}`."""

    @classmethod
    def from_directory(cls, directory: Path) -> PhonemeTables:
        """Read the four `G2P_*` and `custom_replace` files as the model's repository names them.

        Raises:
            TextDataError: a file is missing or not in its form; the message names it.
        """
        replacements: dict[str, str] = {}
        for where, entry in _json_lines(directory / "G2P_replace_dict.jsonl"):
            replacements |= _strings(entry, where)
        spellings = dict(_spellings(directory / "custom_replace.jsonl"))
        kept = _names(directory / "G2P_able_1word.json")
        phonemes = frozenset(map(_as_token, _names(directory / "G2P_all_phonemes.json")))
        return cls(replacements, frozenset(kept), phonemes, spellings)

    @cached_property
    def replacement_pattern(self) -> re.Pattern[str] | None:
        """Matches the longest key of `replacements` at a position."""
        keys = sorted(filter(None, self.replacements), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, keys))) if keys else None

    def respell(self, text: str) -> str:
        for written, spelling in self.spellings.items():
            text = text.replace(written, spelling)
        return text


def check_tokens(text: str, known: Iterable[str]) -> None:
    """Refuse phonemes that the model does not have.

    Raises:
        TextError: names each unknown token, with the code `unknown_phoneme`.
    """
    allowed = frozenset(known)
    written = dict.fromkeys(match.group() for match in TOKEN.finditer(text))
    unknown = [token for token in written if token not in allowed]
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise TextError(
            f"The text has phonemes that the model does not know: {', '.join(unknown[:8])}{more}. "
            "Write an initial and a final with its tone, as in '<|SH|><|EN1|>' for 参 in 人参.",
            code="unknown_phoneme",
        )


def to_phonemes(
    text: str, tables: PhonemeTables, known: Iterable[str] | None = None, *, exact: bool = False
) -> str:
    """The text with the sound of each character that is not kept, in context.

    Tokens already in the text are left alone. With `known`, a character whose sound the model has
    no tokens for stays a character. `exact` reads word by word, as the reference does.
    """
    readings = reference_readings if exact else context_readings
    allowed = None if known is None else frozenset(known)
    return "".join(
        _spell(piece, tables, readings, allowed) if is_text else piece
        for piece, is_text in _unmarked(text, tables)
    )


def reference_readings(run: str) -> list[Syllable | None]:
    """Readings of a run of Chinese characters, each word on its own."""
    syllables = [syllable for word in _words(run) for syllable in _pinyin(word)]
    return _aligned(run, syllables)


def context_readings(run: str) -> list[Syllable | None]:
    """Readings of a run in context.

    A word of several characters is read as a word; a single character as part of the phrase that
    pypinyin finds around it, so that 还 in 还钱 is huán. Phrases of `READINGS` come before both.
    """
    syllables: list[Syllable | None] = _aligned(run, _pinyin(run))
    start = 0
    for word in _words(run):
        if len(word) > 1:
            syllables[start : start + len(word)] = _aligned(word, _pinyin(word))
        start += len(word)
    for match in _READINGS_PATTERN.finditer(run):
        reading = READINGS[match.group()].split()
        syllables[match.start() : match.end()] = map(_initial_and_final, reading)
    return syllables


def tokens_of(syllable: Syllable) -> str:
    """`<|SH|><|EN1|>` of ("sh", "en1"), with the two vowels that pinyin also writes as i."""
    initial, final = syllable
    if final.startswith("i"):
        vowel = "iii" if initial in {"zh", "ch", "sh", "r"} else "i"
        final = ("ii" if initial in {"z", "c", "s"} else vowel) + final[1:]
    return "".join(_as_token(part) for part in (initial, final) if part)


_READINGS_PATTERN = re.compile("|".join(sorted(READINGS, key=len, reverse=True)))


def _initial_and_final(pinyin: str) -> Syllable:
    convert = load("pypinyin.contrib.tone_convert", "pypinyin", _PURPOSE)
    return convert.to_initials(pinyin), convert.to_finals_tone3(pinyin, neutral_tone_with_five=True)


def _spell(
    text: str,
    tables: PhonemeTables,
    readings: Callable[[str], Sequence[Syllable | None]],
    known: frozenset[str] | None,
) -> str:
    pieces = _CHINESE_RUN.split(text)
    for index in range(1, len(pieces), 2):
        run = pieces[index]
        pieces[index] = "".join(
            _sound(character, syllable, tables, known)
            for character, syllable in zip(run, readings(run), strict=True)
        )
    return "".join(pieces)


def _sound(
    character: str, syllable: Syllable | None, tables: PhonemeTables, known: frozenset[str] | None
) -> str:
    if syllable is None or character in tables.kept:
        return character
    tokens = tokens_of(syllable)
    if known is not None and not all(m.group() in known for m in TOKEN.finditer(tokens)):
        return character
    return tokens


def _unmarked(text: str, tables: PhonemeTables) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each is still to be read: tokens and replacements are not."""
    end = 0
    for match in TOKEN.finditer(text):
        yield from _unreplaced(text[end : match.start()], tables)
        yield match.group(), False
        end = match.end()
    yield from _unreplaced(text[end:], tables)


def _unreplaced(text: str, tables: PhonemeTables) -> Iterator[tuple[str, bool]]:
    end = 0
    if tables.replacement_pattern is not None:
        for match in tables.replacement_pattern.finditer(text):
            yield text[end : match.start()], True
            yield tables.replacements[match.group()], False
            end = match.end()
    yield text[end:], True


def _words(run: str) -> list[str]:
    return [pair.word for pair in _jieba().lcut(run.translate(_RESPELT))]


def _pinyin(word: str) -> list[Syllable]:
    pypinyin = load("pypinyin", "pypinyin", _PURPOSE)

    def read(style: Any) -> list[str]:
        readings = pypinyin.pinyin(
            word.translate(_RESPELT), style=style, neutral_tone_with_five=True, strict=True
        )
        return [reading[0] for reading in readings]

    return list(zip(read(pypinyin.Style.INITIALS), read(pypinyin.Style.FINALS_TONE3), strict=False))


def _aligned(text: str, syllables: Sequence[Syllable]) -> list[Syllable | None]:
    """One syllable a character; none at all where pypinyin left characters unread."""
    if len(syllables) != len(text) or any(not final for _, final in syllables):
        return [None] * len(text)
    return [s if s[1].isascii() else None for s in syllables]


def _jieba() -> Any:
    """jieba's tagger, without its report of how long the dictionary took to load."""
    tagger = load("jieba.posseg", "jieba", _PURPOSE)
    tagger.jieba.setLogLevel("WARNING")
    return tagger


def _as_token(phoneme: str) -> str:
    return f"<|{phoneme.removeprefix('<|').removesuffix('|>').upper()}|>"


def _names(path: Path) -> list[str]:
    """A JSON list of strings, or the keys of an object."""
    names = _parse(_read(path), str(path))
    if not isinstance(names, (list, dict)) or not all(isinstance(name, str) for name in names):
        raise TextDataError(f"{path}: must be a JSON list of strings")
    return list(names)


def _spellings(path: Path) -> Iterator[tuple[str, str]]:
    for where, entry in _json_lines(path):
        pair = _strings(entry, where)
        if set(pair) != {"origin", "new"} or not pair["origin"]:
            raise TextDataError(f"{where}: must have 'origin' and 'new'")
        yield pair["origin"], pair["new"]


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(line, where)


def _strings(entry: Any, where: str) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
        raise TextDataError(f"{where}: must be a JSON object of strings")
    return entry


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TextDataError(f"{where}: is not JSON: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextDataError(f"{path}: cannot be read: {error}") from error
