"""Who speaks in a clip, as 192 numbers: CAM++, run by ONNX Runtime on the CPU.

The graph is run as it was published, because its pooling divides the last, partial segment of 100
frames by the full length, which torch's pooling does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from glm_tts import features

SPEAKER_DIMENSIONS: Final = 192

_TRIAL_FRAMES: Final = 250
"""Frames of silence that a model is tried on: two whole segments of its pooling and a part."""


class SpeakerModelError(ValueError):
    """The file is not a CAM++ model; the message says what of it is wrong."""


class SpeakerEncoder:
    """Turns a clip into a speaker embedding."""

    def __init__(self, model: Path | bytes) -> None:
        """Loads a model from a file or its content, and tries it once.

        Raises:
            SpeakerModelError: it is not there, cannot be loaded, or takes or gives something else
                than mel features [1, T, 80] and an embedding of 192.
        """
        self._name = "campplus.onnx" if isinstance(model, bytes) else str(model)
        self._session = _session(model, self._name)
        self._input = self._only_input()
        self._run(np.zeros((1, _TRIAL_FRAMES, features.KALDI_MELS), np.float32))

    def embed(self, samples: Tensor) -> Tensor:
        """Samples [N], or [channels, N] that are averaged, at 16 kHz in ±1 → embedding [192].

        As the model gives it: the flow normalises its length.
        """
        mono = samples.to("cpu", torch.float32)
        fbank = features.kaldi_fbank(mono.mean(dim=0) if mono.dim() == 2 else mono)  # [T, 80]
        centred = fbank - fbank.mean(dim=0)
        return torch.from_numpy(self._run(centred[None].numpy()))

    def _only_input(self) -> str:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(repr(it.name) for it in inputs)
            raise SpeakerModelError(f"{self._name} has {len(inputs)} inputs ({names}), not one")
        shape, kind = inputs[0].shape, inputs[0].type
        free = [it if isinstance(it, int) else None for it in shape]
        fits = len(free) == 3 and free[0] in (None, 1) and free[1] is None
        if not fits or free[2] not in (None, features.KALDI_MELS) or kind != "tensor(float)":
            raise SpeakerModelError(
                f"{self._name}: its input {inputs[0].name!r} is a {kind} {shape}, not a "
                f"tensor(float) [1, frames, {features.KALDI_MELS}]"
            )
        return inputs[0].name

    def _run(self, fbank: np.ndarray) -> np.ndarray:
        """[1, T, 80] → [192]."""
        try:
            embedding = self._session.run(None, {self._input: fbank})[0]
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise SpeakerModelError(f"{self._name} fails on {fbank.shape}: {error}") from error
        if embedding.size != SPEAKER_DIMENSIONS:
            raise SpeakerModelError(
                f"{self._name} gives {embedding.shape} for {fbank.shape}, not "
                f"{SPEAKER_DIMENSIONS} numbers: is it the speaker model of this checkpoint?"
            )
        return embedding.reshape(SPEAKER_DIMENSIONS)


def _session(model: Path | bytes, name: str) -> Any:
    if isinstance(model, Path) and not model.is_file():
        raise SpeakerModelError(
            f"{name} is not there. It is published in the model's source repository, in "
            "`frontend/`, not beside the weights: copy it into the model's directory"
        )
    import onnxruntime  # takes a second, and only who makes new voices needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is in the exception
    content = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise SpeakerModelError(f"{name} cannot be loaded: {error}") from error
