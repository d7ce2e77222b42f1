"""It speaks: what leaves the gateway is the sentence that went in."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from infra.local.speak import sentences, speak
from tests.e2e.environment import Environment
from tests.e2e.listening import samples, word_error_rate


def test_the_list_holds_a_hundred_sentences_of_twelve_words() -> None:
    assert len(set(sentences())) >= 100
    assert min(len(sentence.split()) for sentence in sentences()) >= 12


def test_three_sentences_are_understood_by_a_listener(
    environment: Environment, tmp_path: Path
) -> None:
    drawn = random.sample(sentences(), 3)
    for number, sentence in enumerate(drawn):
        heard = speak(environment.door, sentence, tmp_path / f"{number}.wav")
        rate = word_error_rate(sentence, samples(heard.path))
        assert rate <= 0.1, f"{sentence!r} was heard with WER {rate:.2f}"


@pytest.mark.parametrize("damage", ["another sentence", "noise"])
def test_the_listener_does_not_hear_what_was_not_said(
    environment: Environment, tmp_path: Path, damage: str
) -> None:
    spoken, other = random.sample(sentences(), 2)
    audio = samples(speak(environment.door, spoken, tmp_path / "a.wav").path)
    if damage == "noise":
        noise = np.random.default_rng(7).normal(0, 0.3, len(audio)).astype(np.float32)
        assert word_error_rate(spoken, noise) > 0.5
    else:
        assert word_error_rate(other, audio) > 0.5
