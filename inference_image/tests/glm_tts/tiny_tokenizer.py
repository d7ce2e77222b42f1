"""Writes a tokenizer and phoneme tables in the published layout, small and of our own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

SPEECH_CODES = 32768
INITIALS = "b p m f d t n l g k h j q x zh ch sh r z c s".split()  # noqa: SIM905
_FINALS = (
    "a o e i ii iii u v ai ei ao ou an en ang eng er ia ie iao iou ian in iang ing ua uo uai uei "
    "uan uen uang ueng ong ve van vn iong"
)
PHONEMES = [f"<|{name.upper()}|>" for name in INITIALS] + [
    f"<|{final.upper()}{tone}|>" for final, tone in product(_FINALS.split(), "12345")
]
MERGES = [
    *("th", "the", " t", " the", "in", "ing", "er", "an", "and", " a", " an", " and", "lo", "llo"),
    *("中", "国", "中国", "你", "好", "你好", "人", "果", "。"),
]


def rank_table(merges: Iterable[str] = MERGES) -> list[bytes]:
    """Tokens by rank: every byte, the prefixes of each merge (so that pairs can make it), and one
    of the sentinels that fill unused ranks."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"<|UNUSED_pad_256|>"]
    for merge in merges:
        raw = merge.encode()
        for end in range(2, len(raw) + 1):
            if raw[:end] not in tokens:
                tokens.append(raw[:end])
    return tokens


def added_tokens(first_id: int, phonemes: Iterable[str] = PHONEMES) -> dict[str, int]:
    control = "<|endoftext|> [MASK] [gMASK] <sop> <eop> <|system|> <|user|> <|assistant|>".split()  # noqa: SIM905
    speech = [f"<|audio_{code}|>" for code in range(SPEECH_CODES)]
    names = [*control, "<|begin_of_audio|>", "<|end_of_audio|>", *phonemes, *speech]
    return {name: first_id + index for index, name in enumerate(names)}


def write_tokenizer(directory: Path, phonemes: Iterable[str] = PHONEMES) -> Path:
    """Write `tokenizer.model` and `tokenizer_config.json`; returns the directory."""
    ranks = rank_table()
    directory.mkdir(parents=True, exist_ok=True)
    write_ranks(directory, ranks)
    write_added_tokens(directory, added_tokens(len(ranks), phonemes))
    return directory


def write_ranks(directory: Path, tokens: Iterable[bytes]) -> None:
    lines = [f"{base64.b64encode(t).decode()} {rank}\n" for rank, t in enumerate(tokens)]
    (directory / "tokenizer.model").write_text("".join(lines))


def write_added_tokens(directory: Path, added: dict[str, int]) -> None:
    decoder = {str(i): {"content": name, "special": True} for name, i in added.items()}
    config = {"added_tokens_decoder": decoder, "tokenizer_class": "ChatGLM4Tokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_phoneme_tables(
    directory: Path,
    *,
    kept: str = "人果你好我是的他在有了",
    replacements: dict[str, str] | None = None,
    spellings: dict[str, str] | None = None,
    phonemes: Iterable[str] = PHONEMES,
) -> Path:
    """Write the four files of the model's `configs/`; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    replacements = replacements or {"弦": "<|X|><|IAN2|>", "上弦月": "上<|X|><|IAN2|>月"}
    spellings = spellings or {"噢": "哦", "欸": "诶"}
    _write(directory / "G2P_able_1word.json", json.dumps(list(kept)))
    _write(directory / "G2P_all_phonemes.json", json.dumps(list(phonemes)))
    _write_lines(directory / "G2P_replace_dict.jsonl", [{k: v} for k, v in replacements.items()])
    entries = [{"origin": written, "new": spelling} for written, spelling in spellings.items()]
    _write_lines(directory / "custom_replace.jsonl", entries)
    return directory


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
