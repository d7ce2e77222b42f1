"""From text to ids: segments, prompts, phoneme control, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts import text as package
from glm_tts.text import (
    FrontEnd,
    MissingPackageError,
    PhonemeTables,
    TextDataError,
    TextError,
    TextTokenizer,
)
from glm_tts.text.packages import load
from inference_image.tests.glm_tts import tiny_tokenizer as tiny

ADDED = tiny.added_tokens(len(tiny.rank_table()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny.write_tokenizer(directory / "vq32k-phoneme-tokenizer")
    tiny.write_phoneme_tables(directory / "configs")
    return directory


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> TextTokenizer:
    return TextTokenizer.from_directory(model / "vq32k-phoneme-tokenizer")


@pytest.fixture(scope="module")
def tables(model: Path) -> PhonemeTables:
    return PhonemeTables.from_directory(model / "configs")


@pytest.fixture(scope="module")
def improved(tokenizer: TextTokenizer, tables: PhonemeTables) -> FrontEnd:
    return FrontEnd(tokenizer, phoneme_tables=tables)


@pytest.fixture(scope="module")
def exact(tokenizer: TextTokenizer, tables: PhonemeTables) -> FrontEnd:
    return FrontEnd(tokenizer, "exact", tables)


def test_the_segments_of_a_text_are_the_ids_of_what_is_said(
    improved: FrontEnd, tokenizer: TextTokenizer
) -> None:
    assert improved.segments("我有3个") == [tokenizer.encode("我有三个。")]


def test_the_prompt_ends_with_the_space_that_parts_it_from_the_text(
    improved: FrontEnd, exact: FrontEnd, tokenizer: TextTokenizer
) -> None:
    assert improved.prompt_ids("你好") == tokenizer.encode("你好。 ")
    assert exact.prompt_ids("你好") == tokenizer.encode("你好。 ")


LONG = "今天天气很好，我们一起去公园里散步，看见了很多美丽的花和高大的树木，然后我们回家吃饭。"


@pytest.mark.parametrize("mode", ["improved", "exact"])
def test_a_segment_that_ended_at_a_comma_ends_with_a_full_stop(
    tokenizer: TextTokenizer, mode: package.Mode
) -> None:
    spoken = FrontEnd(tokenizer, mode).spoken(LONG)
    assert spoken == [
        "今天天气很好，我们一起去公园里散步，看见了很多美丽的花和高大的树木。",
        "然后我们回家吃饭。",
    ]


def test_a_client_s_phonemes_reach_the_ids(improved: FrontEnd, tokenizer: TextTokenizer) -> None:
    [ids] = improved.segments("人<|SH|><|EN1|>果！")
    sounds = [ADDED["<|SH|>"], ADDED["<|EN1|>"]]
    assert ids == [*tokenizer.encode("人"), *sounds, *tokenizer.encode("果！")]


def test_in_the_exact_mode_a_client_s_phonemes_are_read_as_signs(exact: FrontEnd) -> None:
    assert exact.spoken("人<|SH|>果") == ["人小于sh大于果。"]


@pytest.mark.parametrize("front_end", ["improved", "exact"])
def test_phoneme_mode_spells_what_the_model_does_not_read_by_itself(
    front_end: str, request: pytest.FixtureRequest, tokenizer: TextTokenizer
) -> None:
    subject: FrontEnd = request.getfixturevalue(front_end)
    [ids] = subject.segments("人参果", phonemes=True)
    sounds = [ADDED["<|SH|>"], ADDED["<|EN1|>"]]
    assert ids == [*tokenizer.encode("人"), *sounds, *tokenizer.encode("果。")]
    assert subject.spoken("人参果", phonemes=True) == ["人<|SH|><|EN1|>果。"]
    assert subject.spoken("人参果") == ["人参果。"]


def test_phoneme_mode_reads_a_bank_s_head_in_context(improved: FrontEnd) -> None:
    [spoken] = improved.spoken("行长", phonemes=True)
    assert spoken == "<|H|><|ANG2|><|ZH|><|ANG3|>。"


def test_phoneme_mode_leaves_a_client_s_phonemes_as_they_are(improved: FrontEnd) -> None:
    [spoken] = improved.spoken("<|C|><|AN1|>参", phonemes=True)
    assert spoken.startswith("<|C|><|AN1|><|")


def test_numbers_are_read_before_they_are_spelt(improved: FrontEnd) -> None:
    assert improved.spoken("3", phonemes=True) == ["three."]
    assert improved.spoken("3参", phonemes=True)[0].startswith("<|S|><|AN1|>")


def test_spellings_of_the_model_apply_without_phoneme_mode(improved: FrontEnd) -> None:
    assert improved.spoken("噢") == ["哦。"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_text"),
        (" \n", "empty_text"),
        ("😀", "nothing_to_speak"),
        ("——", "nothing_to_speak"),
        ("人<|QQ|>", "unknown_phoneme"),
        ("＜｜QQ｜＞", "unknown_phoneme"),
        ("<|user|>", "unknown_phoneme"),
        ("<|audio_5|>", "unknown_phoneme"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_reason(
    improved: FrontEnd, text: str, code: str
) -> None:
    with pytest.raises(TextError) as refusal:
        improved.segments(text)
    assert refusal.value.code == code
    with pytest.raises(TextError) as refusal:
        improved.prompt_ids(text)
    assert refusal.value.code == code


def test_in_the_exact_mode_nothing_is_said_as_a_full_stop(exact: FrontEnd) -> None:
    assert exact.spoken("😀") == ["."]


def test_where_the_reference_raises_the_exact_mode_says_so(
    exact: FrontEnd, improved: FrontEnd
) -> None:
    text = "understanding " * 40
    with pytest.raises(TextError, match="IndexError") as refusal:
        exact.segments(text)
    assert refusal.value.code == "unspeakable_text"
    assert len(improved.segments(text)) == 2


def test_phoneme_mode_without_tables_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(TextError, match="no phoneme tables") as refusal:
        FrontEnd(tokenizer).segments("行长", phonemes=True)
    assert refusal.value.code == "phonemes_unavailable"


def test_tables_with_phonemes_that_the_tokenizer_lacks_are_refused(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    tiny.write_phoneme_tables(tmp_path, phonemes=["SH", "ZZ9"])
    with pytest.raises(TextDataError, match=r"G2P_all_phonemes.json names 1 .*<\|ZZ9\|>"):
        FrontEnd(tokenizer, phoneme_tables=PhonemeTables.from_directory(tmp_path))


@pytest.mark.parametrize(
    ("module", "package_name", "mode", "phonemes"),
    [
        ("emoji", "emoji", "exact", False),
        ("opencc", "opencc", "improved", False),
        ("jieba.posseg", "jieba", "improved", True),
        ("pypinyin", "pypinyin", "improved", True),
    ],
)
def test_a_missing_package_is_named_with_what_needs_it(
    tokenizer: TextTokenizer,
    tables: PhonemeTables,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package_name: str,
    mode: package.Mode,
    phonemes: bool,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=f"pip install '{package_name}'"):
        FrontEnd(tokenizer, mode, tables).segments("参", phonemes=phonemes)


def test_a_package_that_is_there_is_loaded() -> None:
    assert load("json", "json", "Nothing").dumps(1) == "1"
    with pytest.raises(MissingPackageError, match="Speech needs the package 'no-such-package'"):
        load("no_such_package", "no-such-package", "Speech")


PIECES = st.sampled_from(
    [
        "人参",
        "行长",
        "hello ",
        "3",
        "-3.5℃",
        "。",
        "!",
        "<|SH|>",
        "<|EN1|>",
        "😀",
        "\n",
        "<b>",
        "a_b",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=40).map("".join)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.booleans(), st.sampled_from(["improved", "exact"]))
def test_any_text_is_ids_or_a_refusal(text: str, phonemes: bool, mode: package.Mode) -> None:
    front_end = _front_end(mode)
    try:
        segments = front_end.segments(text, phonemes=phonemes)
    except TextError:
        return
    first_speech = ADDED["<|audio_0|>"]
    assert all(segments)
    assert all(0 <= index < first_speech for segment in segments for index in segment)


@cache
def _front_end(mode: package.Mode) -> FrontEnd:
    ranks = {token: rank for rank, token in enumerate(tiny.rank_table())}
    tokenizer = TextTokenizer(ranks, ADDED, Path("tiny"))
    return FrontEnd(tokenizer, mode, PhonemeTables(kept=frozenset("人")))


def test_the_packages_for_texts_are_imported_when_a_text_needs_them() -> None:
    optional = ["tiktoken", "opencc", "jieba", "pypinyin", "tn", "inflect", "emoji"]
    code = f"import sys, glm_tts.text; print([m for m in {optional} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_exported_name_exists() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
