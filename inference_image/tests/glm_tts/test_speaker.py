"""A speaker embedding is what the published graph makes of Kaldi's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto

from glm_tts import features
from glm_tts.speaker import SpeakerEncoder, SpeakerModelError
from inference_image.tests.glm_tts.tiny_campplus import WEIGHT, model


def clip(samples: int = 8000, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["input", "feats"])
def test_the_embedding_is_that_of_centred_features_whatever_the_input_is_called(name: str) -> None:
    spoken = SpeakerEncoder(model(name=name)).embed(clip())
    assert spoken.shape == (192,)
    assert spoken.dtype == torch.float32
    fbank = features.kaldi_fbank(clip())
    slow = np.abs((fbank - fbank.mean(dim=0)).double().numpy() @ WEIGHT).mean(axis=0)
    np.testing.assert_allclose(spoken.numpy(), slow, atol=1e-4)
    uncentred = np.abs(fbank.double().numpy() @ WEIGHT).mean(axis=0)
    assert np.abs(spoken.numpy() - uncentred).max() > 1


def test_channels_are_averaged() -> None:
    encoder, left, right = SpeakerEncoder(model()), clip(), clip(seed=1)
    both = encoder.embed(torch.stack([left, right]))
    torch.testing.assert_close(both, encoder.embed((left + right) / 2))
    assert not torch.allclose(both, encoder.embed(left))


def test_a_file_is_as_good_as_its_content(tmp_path: Path) -> None:
    path = tmp_path / "campplus.onnx"
    path.write_bytes(model())
    assert torch.equal(SpeakerEncoder(path).embed(clip()), SpeakerEncoder(model()).embed(clip()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model(shape=(1, "frames", 64), weight=WEIGHT[:64]), r"input 'input' .* \[1, frames, 80\]"),
        (model(shape=(80, "frames")), r"input 'input' .* \[1, frames, 80\]"),
        (model(shape=(1, 100, 80)), r"input 'input' .* \[1, frames, 80\]"),
        (model(shape=(2, "frames", 80)), r"input 'input' .* \[1, frames, 80\]"),
        (model(kind=TensorProto.DOUBLE), r"a tensor\(double\) .*, not a tensor\(float\)"),
        (model(inputs=2), r"2 inputs \('input', 'more_1'\), not one"),
        (model(weight=WEIGHT[:, :128]), r"gives \(1, 128\) for \(1, 250, 80\), not 192 numbers"),
        (model(shape=(1, "frames", "mels"), weight=WEIGHT[:64]), r"fails on \(1, 250, 80\)"),
        (b"not a model", "cannot be loaded"),
        (b"", "cannot be loaded"),
    ],
)
def test_what_is_not_a_speaker_model_is_refused_when_it_is_loaded(
    content: bytes, message: str
) -> None:
    SpeakerEncoder(model())
    with pytest.raises(SpeakerModelError, match=message):
        SpeakerEncoder(content)


def test_a_model_that_is_not_there_is_said_to_come_from_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SpeakerModelError, match=r"frontend/campplus\.onnx .* copy it into"):
        SpeakerEncoder(tmp_path / "frontend" / "campplus.onnx")
