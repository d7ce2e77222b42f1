"""The 32 kHz wrapper, around tiny scripted graphs of the published form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.vocoder import Vocoder
from glm_tts.vocos import Vocos2D, VocosError
from inference_image.tests.glm_tts.test_dit import close, random

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Graph(torch.nn.Module):
    """[B, T, 80] -> [B, hop (T - fewer)]; each sample depends on the whole of its row."""

    def __init__(self, hop: int = 640, fewer: int = 0) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(80, hop)
        self.fewer = fewer

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        if mel.size(1) < 2:
            raise ValueError("one frame is too short")
        x = torch.tanh(self.linear(mel - mel.mean(dim=1, keepdim=True)) + mel.mean())
        return x[:, : mel.size(1) - self.fewer].flatten(1)


def scripted(module: torch.nn.Module, path: Path) -> Path:
    torch.manual_seed(0)
    torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return scripted(Graph(), tmp_path_factory.mktemp("vocos") / "generator_jit.ckpt")


@pytest.fixture(scope="module")
def vocoder(path: Path) -> Vocos2D:
    return Vocos2D.load(path)


def test_the_graph_is_given_the_mel_minus_the_logarithm_of_2560(
    vocoder: Vocos2D, path: Path
) -> None:
    mel = random(2, 7, 80)
    with torch.no_grad():
        expected = torch.jit.load(path)(mel - math.log(2560))
        unshifted = torch.jit.load(path)(mel)
    assert close(vocoder(mel), expected)
    assert not close(vocoder(mel), unshifted, 1e-2)


def test_one_frame_is_doubled_and_gives_one_frame_of_audio(vocoder: Vocos2D) -> None:
    mel = random(1, 1, 80)
    assert torch.equal(vocoder(mel), vocoder(mel.repeat(1, 2, 1))[:, :640])


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_batch_gives_what_each_of_its_rows_gives_alone(
    vocoder: Vocos2D, lengths: list[int]
) -> None:
    mel = random(len(lengths), 9, 80)
    audio = vocoder(mel, torch.tensor(lengths))
    assert audio.shape == (len(lengths), 9 * 640)
    for row, length in enumerate(lengths):
        # A graph of this kind mixes rows of one length, if it likes; this one does by its mean.
        alike = [index for index, other in enumerate(lengths) if other == length]
        expected = vocoder(mel[alike, :length])[alike.index(row)]
        assert close(audio[row, : length * 640], expected)
        assert not audio[row, length * 640 :].any()


def test_it_is_a_vocoder_of_32_khz(vocoder: Vocos2D) -> None:
    common: Vocoder = vocoder
    assert (common.sample_rate_hz, common.samples_per_frame) == (32_000, 640)


def test_a_graph_that_leaves_the_last_frame_out_is_filled_up_with_silence(tmp_path: Path) -> None:
    vocoder = Vocos2D.load(scripted(Graph(fewer=1), tmp_path / "g.ckpt"))
    audio = vocoder(random(1, 5, 80))
    assert audio.shape == (1, 5 * 640)
    assert audio[0, : 4 * 640].all()
    assert not audio[0, 4 * 640 :].any()


@pytest.mark.parametrize("graph", [Graph(hop=480), Graph(fewer=2)])
def test_a_graph_of_another_rate_is_refused(tmp_path: Path, graph: Graph) -> None:
    path = scripted(graph, tmp_path / "g.ckpt")
    with pytest.raises(VocosError, match=r"makes audio of \[1, \d+\].*32000 Hz it is \[1, 32000\]"):
        Vocos2D.load(path)


def test_a_graph_that_takes_no_mel_is_refused(tmp_path: Path) -> None:
    path = scripted(torch.nn.Linear(81, 3), tmp_path / "g.ckpt")
    with pytest.raises(VocosError, match=r"g\.ckpt does not take a mel of \[1, 50, 80\]"):
        Vocos2D.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(VocosError, match=r"state\.pt is not a TorchScript file"):
        Vocos2D.load(path)


@pytest.mark.parametrize("shape", [(7, 80), (1, 80, 7), (1, 7, 100)])
def test_a_mel_of_another_shape_is_refused(vocoder: Vocos2D, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mel is \[.*\], not \[rows, frames, 80\]"):
        vocoder(torch.zeros(shape))
