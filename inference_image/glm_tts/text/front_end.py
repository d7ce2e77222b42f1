"""From what a client sent to the text ids of each segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from glm_tts.text import phonemes, segments
from glm_tts.text.errors import MissingPackageError, TextDataError, TextError
from glm_tts.text.exact import ExactNormaliser
from glm_tts.text.improved import ImprovedNormaliser, finish
from glm_tts.text.phonemes import PhonemeTables
from glm_tts.text.tokenizer import TextTokenizer

_T = TypeVar("_T")
Mode = Literal["improved", "exact"]


class FrontEnd:
    """Normalises, cuts into segments, optionally spells in phonemes, and encodes.

    `improved` repairs what the reference gets wrong and lets clients write phonemes; `exact` gives
    the reference's text, defects included, for comparisons. Give the model's `phoneme_tables` in
    both modes if there are any: its spellings (`custom_replace.jsonl`) apply to every text.

    Safe to use from several threads once it has seen a first text.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        mode: Mode = "improved",
        phoneme_tables: PhonemeTables | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._exact = mode == "exact"
        self._has_tables = phoneme_tables is not None
        self._tables = phoneme_tables or PhonemeTables()
        self._phonemes = _known_phonemes(tokenizer, self._tables)
        self._improved_normaliser = ImprovedNormaliser(self._tables)
        self._exact_normaliser = ExactNormaliser(self._tables)

    def segments(self, text: str, *, phonemes: bool = False) -> list[list[int]]:
        """Text ids of each segment of a text, at least one; with `phonemes` in phoneme mode.

        Raises:
            TextError: the text cannot be spoken.
        """
        return [self._tokenizer.encode(spoken) for spoken in self.spoken(text, phonemes=phonemes)]

    def prompt_ids(self, transcript: str) -> list[int]:
        """Text ids of what the reference clip says, with the space that parts it from the text.

        Raises:
            TextError: the transcript cannot be spoken.
        """
        return self._tokenizer.encode(self.normalise(transcript) + " ")

    def spoken(self, text: str, *, phonemes: bool = False) -> list[str]:
        """Each segment as the model reads it, before it is encoded."""
        if phonemes and not self._has_tables:
            raise TextError(
                "Phoneme mode is not available: the model has no phoneme tables.",
                code="phonemes_unavailable",
            )
        cut = self._segments(self.normalise(text))
        return [self._in_phonemes(segment) for segment in cut] if phonemes else cut

    def normalise(self, text: str) -> str:
        """The whole text in words, with plain punctuation."""
        if self._exact:
            return _as_reference(self._exact_normaliser, text)
        spoken = self._improved_normaliser(text)
        phonemes.check_tokens(spoken, self._phonemes)
        return spoken

    def _segments(self, text: str) -> list[str]:
        if self._exact:
            cut = _as_reference(segments.split_as_reference, text)
            return [_as_reference(self._exact_normaliser, segment) for segment in cut]
        return [finish(segment) for segment in segments.split(text)]

    def _in_phonemes(self, text: str) -> str:
        known = None if self._exact else self._phonemes
        return phonemes.to_phonemes(text, self._tables, known, exact=self._exact)


def _known_phonemes(tokenizer: TextTokenizer, tables: PhonemeTables) -> frozenset[str]:
    missing = sorted(tables.phonemes - tokenizer.phoneme_ids.keys())
    if missing:
        raise TextDataError(
            f"G2P_all_phonemes.json names {len(missing)} phonemes that tokenizer_config.json does "
            f"not: {', '.join(missing[:8])}"
        )
    return tables.phonemes or frozenset(tokenizer.phoneme_ids)


def _as_reference(step: Callable[[str], _T], text: str) -> _T:
    """Where the reference raises, whatever it raises, the text is one it cannot speak."""
    try:
        return step(text)
    except MissingPackageError:
        raise
    except Exception as error:
        raise TextError(
            "The reference's normalisation fails on this text "
            f"({type(error).__name__}): use the improved mode or write it differently.",
            code="unspeakable_text",
        ) from error
