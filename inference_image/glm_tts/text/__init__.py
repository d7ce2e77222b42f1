"""Text of GLM-TTS: normalisation, segments, phonemes and ids."""

from glm_tts.text.errors import MissingPackageError, TextDataError, TextError
from glm_tts.text.front_end import FrontEnd, Mode
from glm_tts.text.phonemes import PhonemeTables
from glm_tts.text.tokenizer import SPEECH_IDS, SpecialIds, TextTokenizer

__all__ = [
    "SPEECH_IDS",
    "FrontEnd",
    "MissingPackageError",
    "Mode",
    "PhonemeTables",
    "SpecialIds",
    "TextDataError",
    "TextError",
    "TextTokenizer",
]
