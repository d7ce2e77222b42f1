"""The tokenizer against a literal byte-pair encoding, and every fault of its files by name."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.text import SPEECH_IDS, SpecialIds, TextDataError, TextTokenizer
from inference_image.tests.glm_tts import tiny_tokenizer as tiny

# As ChatGLM4's published tokenizer compiles it.
CUTS = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def literal_encoding(text: str, ranks: dict[bytes, int]) -> list[int]:
    """Merge the neighbours of lowest rank until none can be merged."""
    ids: list[int] = []
    for piece in CUTS.findall(text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while True:
            pairs = [(ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
            possible = [pair for pair in pairs if pair[0] is not None]
            if not possible:
                break
            _, i = min(possible)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> TextTokenizer:
    return TextTokenizer.from_directory(directory)


RANKS = {token: rank for rank, token in enumerate(tiny.rank_table())}
ADDED = tiny.added_tokens(len(RANKS))
TOKENIZER = TextTokenizer(RANKS, ADDED, Path("tiny"))
PIECES = st.one_of(
    st.sampled_from(
        ["the ", "and", "hello", "中国", "你好", "don't", " 12345", "\r\n", "  ", "!?"]
    ),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=6),
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_text_is_encoded_as_by_the_literal_algorithm_with_nothing_before_or_after(
    text: str,
) -> None:
    assert TOKENIZER.encode(text) == literal_encoding(text, RANKS)


def test_special_ids_are_found_by_their_strings(tokenizer: TextTokenizer) -> None:
    assert tokenizer.special_ids == SpecialIds(
        pad=ADDED["<|endoftext|>"],
        stop=ADDED["<|user|>"],
        begin_of_audio=ADDED["<|begin_of_audio|>"],
        first_speech=ADDED["<|audio_0|>"],
        last_speech=ADDED["<|audio_32767|>"],
    )
    assert SPEECH_IDS == 32768


def test_a_phoneme_is_one_id_between_the_text_around_it(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("人<|SH|><|EN1|> 果")
    sounds = [ADDED["<|SH|>"], ADDED["<|EN1|>"]]
    assert ids == [*literal_encoding("人", RANKS), *sounds, *literal_encoding(" 果", RANKS)]


@pytest.mark.parametrize(
    "token", ["<|user|>", "<|audio_5|>", "<|endoftext|>", "<|begin_of_audio|>"]
)
def test_no_text_can_hold_a_control_token_or_speech(tokenizer: TextTokenizer, token: str) -> None:
    ids = tokenizer.encode(f"a {token} b")
    assert ADDED[token] not in ids
    assert ids == literal_encoding(f"a {token} b", RANKS)


def test_sentinels_of_unused_ranks_are_never_produced(tokenizer: TextTokenizer) -> None:
    assert RANKS[b"<|UNUSED_pad_256|>"] not in tokenizer.encode("<|UNUSED_pad_256|>")


def _fails(directory: Path, message: str) -> None:
    with pytest.raises(TextDataError, match=re.escape(message)):
        TextTokenizer.from_directory(directory)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    tiny.write_tokenizer(tmp_path)
    (tmp_path / name).unlink()
    _fails(tmp_path, f"{tmp_path / name}: cannot be read")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("?? 257", "line 258: '?? 257' is not 'base64 rank'"),
        ("YWI=", "line 258: 'YWI=' is not 'base64 rank'"),
        ("YWI= x", "line 258: 'YWI= x' is not 'base64 rank'"),
        ("YWI= 999", "line 258: rank 999 where 257 was expected: ranks must be contiguous from 0"),
        ("YQ== 257", "line 258: token b'a' occurs twice"),
    ],
)
def test_a_bad_line_of_the_ranks_is_named(tmp_path: Path, line: str, message: str) -> None:
    tiny.write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.model"
    lines = path.read_text().splitlines()
    lines[257] = line
    path.write_text("\n".join(lines))
    _fails(tmp_path, message)


def test_ranks_without_every_byte_are_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    tiny.write_ranks(tmp_path, [bytes([byte]) for byte in range(255)])
    _fails(tmp_path, "1 of the 256 single bytes have no rank, first 0xff")


@pytest.mark.parametrize(
    "token", ["<|endoftext|>", "<|user|>", "<|begin_of_audio|>", "<|audio_0|>"]
)
def test_a_missing_special_token_is_named(tmp_path: Path, token: str) -> None:
    tiny.write_tokenizer(tmp_path)
    tiny.write_added_tokens(tmp_path, {k: v for k, v in ADDED.items() if k != token})
    _fails(tmp_path, f"has no token '{token}'")


def test_speech_ids_that_do_not_span_the_codebook_are_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    added = ADDED | {"<|audio_32767|>": ADDED["<|audio_32767|>"] + 1}
    tiny.write_added_tokens(tmp_path, added)
    _fails(tmp_path, "they must lie 32767 apart")


def test_a_special_id_below_the_end_of_text_is_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    pad, stop = ADDED["<|endoftext|>"], ADDED["<|user|>"]
    tiny.write_added_tokens(tmp_path, ADDED | {"<|endoftext|>": stop, "<|user|>": pad})
    _fails(tmp_path, f"the id of stop is {pad}, below <|endoftext|>, which is {stop}")


def test_an_added_token_on_a_rank_is_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    tiny.write_added_tokens(tmp_path, ADDED | {"<sop>": 3})
    _fails(tmp_path, "id 3 of '<sop>' is already a rank of tokenizer.model")


@pytest.mark.parametrize("config", ["[]", "{}", '{"added_tokens_decoder": {"x": {}}}', "not json"])
def test_a_configuration_in_another_form_is_refused(tmp_path: Path, config: str) -> None:
    tiny.write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(config)
    _fails(tmp_path, "tokenizer_config.json: needs 'added_tokens_decoder'")


def test_a_token_with_two_ids_is_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    decoder = {"300": {"content": "<|user|>"}, "301": {"content": "<|user|>"}}
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"added_tokens_decoder": decoder}))
    _fails(tmp_path, "gives one token two ids")
