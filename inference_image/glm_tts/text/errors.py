"""What can go wrong between a text and its ids."""

from __future__ import annotations


class TextError(ValueError):
    """The text itself cannot be spoken. The message is written for the client who sent it.

    Codes: `empty_text`, `nothing_to_speak`, `unknown_phoneme`, `too_many_phonemes`,
    `unspeakable_text` (exact mode only: the reference fails on it).
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class TextDataError(Exception):
    """A file of the model is missing or not what it should be. Names the file and the fault."""


class MissingPackageError(ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install '{package}'")


def nothing_to_speak(what: str = "The text has no words or numbers") -> TextError:
    return TextError(f"{what}, so there is nothing to speak.", code="nothing_to_speak")
