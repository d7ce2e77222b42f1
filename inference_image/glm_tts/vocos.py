"""Vocos2D, the 32 kHz vocoder: a TorchScript graph, called as the published code calls it."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from os import PathLike
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

MEL_OFFSET: Final = -math.log(2560)
"""The graph was trained on mels of a normalised STFT of 2560 samples, the flow was not."""


class VocosError(ValueError):
    """The graph is not the 32 kHz vocoder that it is taken for."""


class Vocos2D:
    """The graph behind the interface `Vocoder`.

    What happens inside is not known, so rows of different lengths are not padded: those of one
    length run together, one length after the other.
    """

    sample_rate_hz: int = 32_000
    samples_per_frame: int = 640
    mel_bins: int = 80

    def __init__(self, graph: torch.jit.ScriptModule) -> None:
        self.graph = graph.eval()

    @classmethod
    def load(cls, path: str | PathLike[str], device: torch.device | str = "cpu") -> Vocos2D:
        """From `vocos2d/generator_jit.ckpt`; one second is synthesised as a check.

        Raises:
            VocosError: the file is no TorchScript, or its audio has not 640 samples per frame, give
            or take the last one.
        """
        try:
            with warnings.catch_warnings():
                # Deprecated by torch, and the only form in which this vocoder is published.
                warnings.simplefilter("ignore", DeprecationWarning)
                graph = torch.jit.load(path, map_location=device)
        except RuntimeError as error:
            raise VocosError(f"{path} is not a TorchScript file: {error}") from error
        vocoder = cls(graph)
        try:
            vocoder(torch.zeros(1, 50, cls.mel_bins, device=device))
        except RuntimeError as error:
            raise VocosError(f"{path} does not take a mel of [1, 50, 80]: {error}") from error
        return vocoder

    @torch.no_grad()
    def __call__(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel [B, T, 80] -> audio [B, 640 T]. See `Vocoder`; lengths are best on the CPU."""
        if mel.dim() != 3 or mel.shape[2] != self.mel_bins:
            raise ValueError(f"mel is {list(mel.shape)}, not [rows, frames, {self.mel_bins}]")
        if lengths is None:
            return self._same_length(mel)
        audio = mel.new_zeros(len(mel), mel.shape[1] * self.samples_per_frame)
        rows_by_length: defaultdict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths.tolist()):
            rows_by_length[length].append(row)
        for length, rows in rows_by_length.items():
            part = self._same_length(mel[rows, :length])
            audio[rows, : part.shape[1]] = part
        return audio

    def _same_length(self, mel: Tensor) -> Tensor:
        frames = mel.shape[1]
        if frames == 1:
            mel = mel.repeat(1, 2, 1)
        audio = self.graph(mel + MEL_OFFSET)
        missing = self._missing_samples(audio, mel)
        return F.pad(audio, (0, missing))[:, : frames * self.samples_per_frame]

    def _missing_samples(self, audio: Tensor, mel: Tensor) -> int:
        """None, or a frame: inverse STFTs with centred frames make one frame less."""
        rows, frames, _ = mel.shape
        missing = frames * self.samples_per_frame - audio.shape[-1]
        if audio.dim() != 2 or len(audio) != rows or missing not in (0, self.samples_per_frame):
            raise VocosError(
                f"of a mel of {list(mel.shape)} the graph makes audio of {list(audio.shape)}, and "
                f"at {self.sample_rate_hz} Hz it is [{rows}, {frames * self.samples_per_frame}]"
            )
        return missing
