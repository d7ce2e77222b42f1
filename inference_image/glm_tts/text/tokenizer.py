"""Text to ids: the ChatGLM4 byte-pair encoding of the checkpoint, read without its own code.

`vq32k-phoneme-tokenizer/` holds `tokenizer.model` (one `base64 rank` pair a line, the tiktoken
form) and `tokenizer_config.json`, whose `added_tokens_decoder` gives the ids above the ranks:
control tokens, phonemes (`<|SH|>`, `<|EN1|>`) and the 32768 codes of speech (`<|audio_0|>` …).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_tts.text.errors import TextDataError
from glm_tts.text.packages import load

SPEECH_IDS = 32768
"""Size of the speech codebook."""

# How ChatGLM4 cuts text before it merges bytes.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PHONEME = re.compile(r"<\|[A-Z]+[1-5]?\|>")


@dataclass(frozen=True)
class SpecialIds:
    """Ids with a meaning of their own in the language model's vocabulary."""

    pad: int
    stop: int
    """Ends speech: `<|user|>`, never spoken."""
    begin_of_audio: int
    first_speech: int
    """Id of speech code 0."""
    last_speech: int
    """Id of the highest speech code, inclusive."""


class TextTokenizer:
    """Encodes text as the published tokenizer does with `encode(text)`: no prefix, no end mark.

    Of the added tokens only phonemes are recognised in a text: no client can write a control token
    or a piece of speech into the prompt.
    """

    def __init__(self, ranks: Mapping[bytes, int], added: Mapping[str, int], source: Path) -> None:
        self._encoding = _encoding(ranks)
        self.special_ids = _special_ids(ranks, added, source)
        self.phoneme_ids: dict[str, int] = {
            token: index
            for token, index in added.items()
            if _PHONEME.fullmatch(token) and index < self.special_ids.first_speech
        }
        """Id of each phoneme by its token: `<|SH|>`."""

    @classmethod
    def from_directory(cls, directory: Path) -> TextTokenizer:
        """Read `tokenizer.model` and `tokenizer_config.json` of a directory.

        Raises:
            TextDataError: a file is missing or inconsistent; the message names it.
        """
        config = directory / "tokenizer_config.json"
        ranks = _read_ranks(directory / "tokenizer.model")
        added = _read_added_tokens(config)
        _check_added_tokens(added, len(ranks), config)
        return cls(ranks, added, config)

    def encode(self, text: str) -> list[int]:
        """Text ids of a text; tokens in the form `<|SH|>` become the ids of phonemes."""
        return [index for piece in self._pieces(text) for index in self._encode_piece(piece)]

    def _pieces(self, text: str) -> Iterator[str]:
        end = 0
        for match in _PHONEME.finditer(text):
            if match.group() in self.phoneme_ids:
                yield from (text[end : match.start()], match.group())
                end = match.end()
        yield text[end:]

    def _encode_piece(self, piece: str) -> list[int]:
        phoneme = self.phoneme_ids.get(piece)
        return self._encoding.encode_ordinary(piece) if phoneme is None else [phoneme]


def _encoding(ranks: Mapping[bytes, int]) -> Any:
    tiktoken = load("tiktoken", "tiktoken", "The text tokenizer")
    return tiktoken.Encoding(
        "glm-tts", pat_str=_PATTERN, mergeable_ranks=dict(ranks), special_tokens={}
    )


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        token, rank = _rank_line(line, f"{path}, line {number}")
        if rank != len(ranks):
            raise TextDataError(
                f"{path}, line {number}: rank {rank} where {len(ranks)} was expected: "
                "ranks must be contiguous from 0"
            )
        if token in ranks:
            raise TextDataError(f"{path}, line {number}: token {token!r} occurs twice")
        ranks[token] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TextDataError(
            f"{path}: {len(missing)} of the 256 single bytes have no rank, first 0x{missing[0]:02x}"
        )
    return ranks


def _rank_line(line: str, where: str) -> tuple[bytes, int]:
    fields = line.split()
    try:
        token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
    except (binascii.Error, ValueError, IndexError) as error:
        raise TextDataError(f"{where}: {line[:60]!r} is not 'base64 rank'") from error
    if len(fields) != 2 or not token:
        raise TextDataError(f"{where}: {line[:60]!r} is not 'base64 rank'")
    return token, rank


def _read_added_tokens(path: Path) -> dict[str, int]:
    try:
        decoder = json.loads(_read(path))["added_tokens_decoder"]
        pairs = [(str(entry["content"]), int(index)) for index, entry in decoder.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TextDataError(
            f"{path}: needs 'added_tokens_decoder', an object of id to {{'content': token}}"
        ) from error
    added = dict(pairs)
    if len(added) != len(pairs):
        raise TextDataError(f"{path}: 'added_tokens_decoder' gives one token two ids")
    return added


def _check_added_tokens(added: Mapping[str, int], rank_count: int, path: Path) -> None:
    below = [token for token, index in added.items() if index < rank_count]
    if below:
        raise TextDataError(
            f"{path}: id {added[below[0]]} of '{below[0]}' is already a rank of tokenizer.model "
            f"(0 to {rank_count - 1})"
        )


def _special_ids(ranks: Mapping[bytes, int], added: Mapping[str, int], path: Path) -> SpecialIds:
    def id_of(token: str) -> int:
        index = added.get(token, ranks.get(token.encode()))
        if index is None:
            raise TextDataError(f"{path}: has no token '{token}'")
        return index

    ids = SpecialIds(
        pad=id_of("<|endoftext|>"),
        stop=id_of("<|user|>"),
        begin_of_audio=id_of("<|begin_of_audio|>"),
        first_speech=id_of("<|audio_0|>"),
        last_speech=id_of(f"<|audio_{SPEECH_IDS - 1}|>"),
    )
    _check_special_ids(ids, path)
    return ids


def _check_special_ids(ids: SpecialIds, path: Path) -> None:
    for name in ("stop", "begin_of_audio", "first_speech", "last_speech"):
        if getattr(ids, name) < ids.pad:
            raise TextDataError(
                f"{path}: the id of {name} is {getattr(ids, name)}, "
                f"below <|endoftext|>, which is {ids.pad}"
            )
    if ids.last_speech - ids.first_speech != SPEECH_IDS - 1:
        raise TextDataError(
            f"{path}: <|audio_0|> is {ids.first_speech} and <|audio_{SPEECH_IDS - 1}|> is "
            f"{ids.last_speech}: they must lie {SPEECH_IDS - 1} apart"
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextDataError(f"{path}: cannot be read: {error}") from error
