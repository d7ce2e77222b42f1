"""Makes the audio of utterances while their speech ids are still being decoded.

One `Utterance` is one segment of text on its way through flow and vocoder; `Synthesizer.run` makes
a pass over several of them at once. What a pass leaves behind for the next, the flow's x at every
step, the vocoder's source, the end of the audio that fades into the next pass's, is the
utterance's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glm_tts.blocks import Blocks, Pass
from glm_tts.dit import Modulations
from glm_tts.flow import EarlierPass, Flow, FlowItem
from glm_tts.vocoder import Vocoder

_NOISE_FRAMES = 64


class Noise:
    """Where the flow starts: the same noise at a frame, however many frames are asked for."""

    def __init__(self, seed: int, mel_bins: int, device: torch.device) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._frames = torch.empty(0, mel_bins, device=device)

    def frames(self, count: int) -> Tensor:
        """The first `count` frames, [count, mel bins]."""
        while len(self._frames) < count:
            # In portions of one size: what `randn` draws depends on how much it draws at once.
            more = torch.randn(_NOISE_FRAMES, self._frames.shape[1], generator=self._generator)
            self._frames = torch.cat((self._frames, more.to(self._frames.device)))
        return self._frames[:count]


@dataclass(frozen=True)
class Prompt:
    """What flow and vocoder need of a voice, on their device."""

    speech_ids: Tensor
    """[N]."""
    mel: Tensor
    """[P, 80], at the vocoder's sample rate."""
    speaker: Tensor
    """[192]."""
    modulations: Modulations | None = None
    """Of `Flow.modulations`, so that they are computed once for a voice."""


@dataclass
class Utterance:
    """One segment: its speech ids as they come, and what passes over it have left."""

    prompt: Prompt
    noise: Noise
    speech_ids: list[int] = field(default_factory=list)
    ended: bool = False
    """Whether `speech_ids` are all there will be."""
    passes: int = 0
    """Passes made."""
    spoken_samples: int = 0
    """Samples made and given away."""
    earlier: EarlierPass | None = None
    source: Tensor | None = None
    """The vocoder's, of the last pass."""
    tail: Tensor | None = None
    """What came after the samples given away, in the last pass."""

    finished: bool = False
    """Whether all its audio has been made."""

    def next_pass(self, blocks: Blocks) -> Pass | None:
        """The pass that can be made now."""
        if self.finished:
            return None
        # In this order: the ids are complete once it has ended.
        ended = self.ended
        return blocks.next(self.passes, len(self.speech_ids), ended)


class Synthesizer:
    """Flow and vocoder, run over prefixes of utterances."""

    def __init__(self, flow: Flow, vocoder: Vocoder, blocks: Blocks) -> None:
        self.flow, self.vocoder, self.blocks = flow, vocoder, blocks
        self._fade = round(blocks.fade_seconds * vocoder.sample_rate_hz)
        self._ramp = torch.linspace(0, 1, self._fade + 2)[1:-1]
        self._mel_bins = flow.config.estimator.mel_bins

    @property
    def device(self) -> torch.device:
        return next(self.flow.parameters()).device

    def prompt(self, speech_ids: Tensor, mel: Tensor, speaker: Tensor) -> Prompt:
        """A voice's part in flow and vocoder, with all that can be computed in advance."""
        speaker = speaker.to(self.device)
        return Prompt(
            speech_ids.to(self.device),
            mel.to(self.device),
            speaker,
            self.flow.modulations(speaker),
        )

    def utterance(self, prompt: Prompt, seed: int) -> Utterance:
        """A segment that has no speech ids yet."""
        return Utterance(prompt, Noise(seed, self._mel_bins, self.device))

    def frames(self, utterance: Utterance, one: Pass) -> int:
        """Mel frames that a pass runs over, the prompt's included."""
        return self.flow.config.frames(len(utterance.prompt.speech_ids) + one.ids)

    @torch.inference_mode()
    def run(
        self, passes: Sequence[tuple[Utterance, Pass]], frames: int | None = None
    ) -> list[NDArray[np.float32]]:
        """Make a pass over each utterance, and return the audio that each one adds.

        Args:
            frames: the length to which all are padded; by default that of the longest.
        """
        items = [self._item(utterance, one) for utterance, one in passes]
        results = self.flow.sample(items, frames=frames)
        for (utterance, one), result in zip(passes, results, strict=True):
            kept = len(utterance.prompt.mel) + one.stable_frames
            utterance.earlier = None if one.final else EarlierPass(result.x[:, :kept], kept)
        sources = [utterance.source for utterance, _ in passes]
        voiced = self.vocoder.speak([result.mel for result in results], sources)
        return [
            self._added(utterance, one, audio, source)
            for (utterance, one), (audio, source) in zip(passes, voiced, strict=True)
        ]

    def _item(self, utterance: Utterance, one: Pass) -> FlowItem:
        prompt = utterance.prompt
        ids = torch.tensor(utterance.speech_ids[: one.ids], device=self.device)
        return FlowItem(
            torch.cat((prompt.speech_ids, ids)),
            prompt.mel,
            prompt.speaker,
            utterance.noise.frames(self.frames(utterance, one)),
            utterance.earlier,
            prompt.modulations,
        )

    def _added(
        self, utterance: Utterance, one: Pass, audio: Tensor, source: Tensor | None
    ) -> NDArray[np.float32]:
        """What a pass adds to the audio given away; its end is held back to fade from."""
        begin = utterance.spoken_samples
        stable = one.stable_frames * self.vocoder.samples_per_frame - self._fade
        end = len(audio) if one.final else max(begin, stable)
        added = audio[begin:end]
        if utterance.tail is not None:
            added = self._faded(utterance.tail, added)
        if end > begin:
            utterance.tail = audio[end : end + self._fade]
        utterance.passes += 1
        utterance.spoken_samples = end
        utterance.source = source
        if one.final:
            utterance.finished, utterance.source, utterance.tail = True, None, None
        return added.cpu().numpy()

    def _faded(self, old: Tensor, new: Tensor) -> Tensor:
        """New audio that begins as the old one."""
        length = min(len(old), len(new))
        ramp = self._ramp[:length].to(new.device)
        mixed = old[:length] * (1 - ramp) + new[:length] * ramp
        return torch.cat((mixed, new[length:]))
