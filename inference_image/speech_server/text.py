"""Which texts a voice can speak. Decided before any work, and without the engine."""

from __future__ import annotations

import unicodedata

from speech_server.engine import UnspeakableTextError, Voice

_SHOWN_CHARACTERS = 8
# Letters by their Unicode category that carry no script of their own in their name.
_SCRIPTLESS_LETTERS = frozenset("ªºµ")
_FULLWIDTH_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def check_text(text: str, voice: Voice, max_characters: int) -> str:
    """The text in the form given to an engine: composed, with full-width Latin made plain.

    Symbols and emoji beside words are let through: a voice reads or skips them. Letters and digits
    are never skipped: what is written in another script is refused, since leaving it out would
    change what is said.

    Raises:
        UnspeakableTextError: empty, too long, nothing to say, or in a script the voice cannot read.
    """
    if not text.strip():
        raise UnspeakableTextError(
            "input is empty: send at least one word to speak.", code="empty_text"
        )
    if len(text) > max_characters:
        raise UnspeakableTextError(
            f"input has {len(text)} characters; at most {max_characters} are allowed in one "
            "request: split the text.",
            code="text_too_long",
        )
    normal = unicodedata.normalize("NFC", text.translate(_FULLWIDTH_TO_ASCII))
    foreign = foreign_characters(normal, voice.scripts)
    if foreign:
        raise UnspeakableTextError(
            f"voice '{voice.name}' speaks {voice.language} and cannot read {_listed(foreign)}: "
            "use a voice for that language or leave these characters out.",
            code="unsupported_characters",
        )
    if not any(unicodedata.category(character)[0] in "LN" for character in normal):
        raise UnspeakableTextError(
            "input has no letters or digits, so there is nothing to speak.", code="nothing_to_speak"
        )
    return normal


def foreign_characters(text: str, scripts: frozenset[str]) -> list[str]:
    """The letters and decimal digits outside the scripts, each once, in order of appearance."""
    return [c for c in dict.fromkeys(text) if not c.isascii() and not _is_readable(c, scripts)]


def _is_readable(character: str, scripts: frozenset[str]) -> bool:
    category = unicodedata.category(character)
    if category[0] != "L" and category != "Nd":
        return True
    if character in _SCRIPTLESS_LETTERS:
        return True
    name = unicodedata.name(character, "")
    return name.startswith("MODIFIER LETTER ") or name.split(" ")[0] in scripts


def _listed(characters: list[str]) -> str:
    shown = ", ".join(f"'{c}' (U+{ord(c):04X})" for c in characters[:_SHOWN_CHARACTERS])
    hidden = len(characters) - _SHOWN_CHARACTERS
    return f"{shown} and {hidden} more" if hidden > 0 else shown
