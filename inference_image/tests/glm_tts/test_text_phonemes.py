"""Phonemes: the published way of spelling, readings in context, and the model's tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.text import PhonemeTables, TextDataError, TextError
from glm_tts.text.phonemes import (
    check_tokens,
    context_readings,
    reference_readings,
    to_phonemes,
    tokens_of,
)
from inference_image.tests.glm_tts import tiny_tokenizer as tiny


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> PhonemeTables:
    return PhonemeTables.from_directory(
        tiny.write_phoneme_tables(tmp_path_factory.mktemp("configs"))
    )


@pytest.mark.parametrize(
    ("syllable", "tokens"),
    [
        (("sh", "en1"), "<|SH|><|EN1|>"),
        (("", "ai4"), "<|AI4|>"),
        (("zh", "i1"), "<|ZH|><|III1|>"),
        (("ch", "i2"), "<|CH|><|III2|>"),
        (("sh", "i4"), "<|SH|><|III4|>"),
        (("r", "i4"), "<|R|><|III4|>"),
        (("z", "i3"), "<|Z|><|II3|>"),
        (("c", "i2"), "<|C|><|II2|>"),
        (("s", "i1"), "<|S|><|II1|>"),
        (("j", "i1"), "<|J|><|I1|>"),
        (("x", "ian2"), "<|X|><|IAN2|>"),
        (("l", "v4"), "<|L|><|V4|>"),
        (("d", "e5"), "<|D|><|E5|>"),
    ],
)
def test_a_syllable_is_spelt_as_the_model_learnt_it(syllable: tuple[str, str], tokens: str) -> None:
    assert tokens_of(syllable) == tokens


@pytest.mark.parametrize("exact", [True, False])
def test_only_characters_that_are_not_kept_become_sounds(
    tables: PhonemeTables, exact: bool
) -> None:
    assert to_phonemes("人参果。", tables, exact=exact) == "人<|SH|><|EN1|>果。"


@pytest.mark.parametrize("exact", [True, False])
def test_the_longest_replacement_comes_first_and_is_not_read_again(
    tables: PhonemeTables, exact: bool
) -> None:
    assert to_phonemes("弦", tables, exact=exact) == "<|X|><|IAN2|>"
    assert to_phonemes("上弦月", tables, exact=exact) == "上<|X|><|IAN2|>月"
    assert to_phonemes("下弦月", tables, exact=exact) == ("<|X|><|IA4|><|X|><|IAN2|><|VE4|>")


@pytest.mark.parametrize("exact", [True, False])
def test_tokens_and_other_scripts_are_left_alone(tables: PhonemeTables, exact: bool) -> None:
    text = "<|SH|><|EN1|> hello, 3."
    assert to_phonemes(text, tables, exact=exact) == text


# Readings by hand: initials and finals, j, q and x before ü written v, as pypinyin's strict style.
POLYPHONES = {
    "行长": "hang2 zhang3",
    "银行": "in2 hang2",
    "银行行长": "in2 hang2 hang2 zhang3",
    "行走": "xing2 zou3",
    "长大": "zhang3 da4",
    "长度": "chang2 du4",
    "重庆": "chong2 qing4",
    "重要": "zhong4 iao4",
    "重复": "chong2 fu4",
    "音乐": "in1 ve4",
    "快乐": "kuai4 le4",
    "还有": "hai2 iou3",
    "还钱": "huan2 qian2",
    "得到": "de2 dao4",
    "必须得": "bi4 xv1 dei3",
    "觉得": "jve2 de5",
    "睡觉": "shuei4 jiao4",
    "了解": "liao3 jie3",
    "好了": "hao3 le5",
    "人参": "ren2 shen1",
    "参加": "can1 jia1",
    "出差": "chu1 chai1",
    "差别": "cha1 bie2",
    "便宜": "pian2 i5",
    "方便": "fang1 bian4",
    "角色": "jve2 se4",
    "角度": "jiao3 du4",
    "因为": "in1 uei4",
    "数学": "shu4 xve2",
    "睡着": "shuei4 zhao2",
    "看着": "kan4 zhe5",
    "背包": "bei1 bao1",
    "背后": "bei4 hou4",
    "都市": "du1 shi4",
    "都是": "dou1 shi4",
    "传记": "zhuan4 ji4",
    "传说": "chuan2 shuo1",
    "姓曾": "xing4 zeng1",
    "曾经": "ceng2 jing1",
    "空调": "kong1 tiao2",
    "调查": "diao4 cha2",
    "理发": "li3 fa4",
    "发现": "fa1 xian4",
    "中奖": "zhong4 jiang3",
    "弹琴": "tan2 qin2",
    "子弹": "zi3 dan4",
    "投降": "tou2 xiang2",
    "降落": "jiang4 luo4",
    "会计": "kuai4 ji4",
    "模样": "mu2 iang4",
    "模型": "mo2 xing2",
    "星宿": "xing1 xiou4",
    "宿舍": "su4 she4",
    "倔强": "jve2 jiang4",
    "勉强": "mian3 qiang3",
    "量体温": "liang2 ti3 uen1",
    "质量": "zhi4 liang4",
    "一行字": "i1 hang2 zi4",
}


@pytest.mark.parametrize(("text", "reading"), POLYPHONES.items())
def test_a_character_with_several_readings_is_read_in_its_context(text: str, reading: str) -> None:
    syllables = context_readings(text)
    assert [a + b for a, b in filter(None, syllables)] == reading.split()


@pytest.mark.parametrize(("text", "index"), [("还钱", 0), ("必须得去", 2), ("姓曾", 1)])
def test_word_by_word_as_the_reference_does_it_reads_some_wrongly(text: str, index: int) -> None:
    assert reference_readings(text)[index] != context_readings(text)[index]


def test_a_sound_that_the_model_has_no_tokens_for_leaves_the_character(
    tables: PhonemeTables,
) -> None:
    known = tables.phonemes - {"<|SH|>"}
    assert to_phonemes("参", tables, known) == "<|C|><|AN1|>"
    assert to_phonemes("人参", tables, known) == "人参"
    assert to_phonemes("人参", tables, known, exact=True) == "人参"


def test_interjections_without_a_vowel_are_read_as_their_nearest_syllable(
    tables: PhonemeTables,
) -> None:
    assert to_phonemes("嗯", tables) == "<|EN1|>"


def test_unknown_phonemes_are_refused_by_name() -> None:
    check_tokens("<|SH|>", ["<|SH|>"])
    with pytest.raises(TextError, match=re.escape("does not know: <|QQ|>, <|sh|>.")) as refusal:
        check_tokens("a<|QQ|>b<|SH|><|sh|><|QQ|>", ["<|SH|>"])
    assert refusal.value.code == "unknown_phoneme"


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("人果参行长重嗯呣唔哼𪚥𠀀弦〇豈⺀ab3，。<|>"), max_size=12))
def test_any_text_keeps_its_other_characters_in_order(text: str) -> None:
    tables = PhonemeTables(kept=frozenset("人果"), replacements={"弦": "<|X|><|IAN2|>"})
    for exact in (True, False):
        spelt = to_phonemes(text, tables, exact=exact)
        kept = [c for c in text if c in "人果ab3，。"]
        rest = re.sub(r"<\|[A-Z]+[1-5]?\|>", "", spelt)
        assert [c for c in rest if c in "人果ab3，。"] == kept


def test_the_tables_are_read_as_the_model_ships_them(tables: PhonemeTables) -> None:
    assert tables.replacements["弦"] == "<|X|><|IAN2|>"
    assert "人" in tables.kept
    assert tables.phonemes == frozenset(tiny.PHONEMES)
    assert tables.respell("噢，欸！") == "哦，诶！"


def test_phonemes_may_be_named_without_their_brackets(tmp_path: Path) -> None:
    tiny.write_phoneme_tables(tmp_path, phonemes=["sh", "EN1", "<|X|>"])
    tables = PhonemeTables.from_directory(tmp_path)
    assert tables.phonemes == {"<|SH|>", "<|EN1|>", "<|X|>"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("G2P_able_1word.json", None, "cannot be read"),
        ("G2P_all_phonemes.json", None, "cannot be read"),
        ("G2P_replace_dict.jsonl", None, "cannot be read"),
        ("custom_replace.jsonl", None, "cannot be read"),
        ("G2P_able_1word.json", "{", "is not JSON"),
        ("G2P_able_1word.json", "[1]", "must be a JSON list of strings"),
        ("G2P_replace_dict.jsonl", '{"a": "b"}\n{"a": 1}', "line 2: must be a JSON object of str"),
        ("G2P_replace_dict.jsonl", "{}\n{", "line 2: is not JSON"),
        ("custom_replace.jsonl", '{"origin": "a"}', "line 1: must have 'origin' and 'new'"),
        ("custom_replace.jsonl", '{"origin": "", "new": "a"}', "line 1: must have 'origin'"),
    ],
)
def test_a_fault_in_a_table_names_file_line_and_form(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tiny.write_phoneme_tables(tmp_path) / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(TextDataError, match=f"{re.escape(str(path))}.*{re.escape(message)}"):
        PhonemeTables.from_directory(tmp_path)
