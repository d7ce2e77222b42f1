"""Makes the audio of utterances while their speech ids are still being decoded.

One `Utterance` is one segment of text on its way through flow and vocoder; `Synthesizer.run` makes
a pass over several of them at once. What a pass leaves for the next is the utterance's: the flow's
x at every step, the mel that is stable, and the end of the audio, which fades into the next pass's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glm_tts.blocks import Blocks, Pass
from glm_tts.dit import Modulations
from glm_tts.flow import EarlierPass, Flow, FlowItem, FlowResult
from glm_tts.flow_graphs import FlowGraphs
from glm_tts.hift import HiFT
from glm_tts.vocoder import Vocoder

_NOISE_FRAMES = 64
"""Frames whose noise is drawn at once."""


class Noise:
    """Normally distributed numbers that are the same at a place, however many are asked for."""

    def __init__(self, seed: int, width: int, portion: int, device: torch.device) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._portion = portion
        self._drawn = torch.empty(0, width, device=device)

    def first(self, count: int) -> Tensor:
        """[count, width]."""
        portions = []
        # In portions of one size: what `randn` draws depends on how much it draws at once.
        for _ in range(len(self._drawn), count, self._portion):
            size = (self._portion, self._drawn.shape[1])
            portions.append(torch.randn(size, generator=self._generator))
        if portions:
            new = torch.cat(portions).to(self._drawn.device)
            self._drawn = torch.cat((self._drawn, new))
        return self._drawn[:count]


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

    @property
    def bytes(self) -> int:
        tensors = [self.speech_ids, self.mel, self.speaker]
        if self.modulations is not None:
            tensors += [self.modulations.blocks, self.modulations.out]
        return sum(it.numel() * it.element_size() for it in tensors)


@dataclass
class Utterance:
    """One segment: its speech ids as they come, and what passes over it have left."""

    prompt: Prompt
    flow_noise: Noise
    """Of frames: where the flow starts."""
    source_noise: Noise | None
    """Of samples: in the vocoder's source, if it has one."""
    speech_ids: list[int] = field(default_factory=list)
    ended: bool = False
    """Whether `speech_ids` are all there will be."""
    passes: int = 0
    """Passes made."""
    spoken_samples: int = 0
    """Samples made and given away."""
    earlier: EarlierPass | None = None
    mel: Tensor | None = None
    """Frames that are stable, [frames, 80]."""
    tail: Tensor | None = None
    """What came after the samples given away, in the last pass."""

    finished: bool = False
    """Whether all its audio has been made."""

    def forget(self) -> None:
        """All is made: keep the speech ids only, which later segments go on from."""
        self.finished = True
        self.earlier = self.mel = self.tail = None

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
        self._graphs = FlowGraphs(flow)
        self._fade = round(blocks.fade_seconds * vocoder.sample_rate_hz)
        self._ramp = torch.linspace(0, 1, self._fade + 2)[1:-1]
        self._mel_bins = flow.config.estimator.mel_bins

    @property
    def device(self) -> torch.device:
        return next(self.flow.parameters()).device

    def record(self, rows: Sequence[int], frames: Sequence[int]) -> None:
        """Record graphs of the flow for numbers of utterances, padded to these lengths in frames.

        On a CPU there is nothing to do.
        """
        if self.device.type == "cuda":
            self._graphs.record(rows, frames)

    def prompt(self, speech_ids: Tensor, mel: Tensor, speaker: Tensor) -> Prompt:
        """A voice's part in flow and vocoder, with all that can be computed in advance."""
        speaker = speaker.to(self.device)
        prompt = Prompt(
            speech_ids.to(self.device),
            mel.to(self.device),
            speaker,
            self.flow.modulations(speaker),
        )
        if self.device.type == "cuda":
            # It is read by another thread, whose work on the device does not wait for this one's.
            torch.cuda.current_stream(self.device).synchronize()
        return prompt

    def utterance(self, prompt: Prompt, seed: int) -> Utterance:
        """A segment that has no speech ids yet."""
        flow_noise = Noise(seed, self._mel_bins, _NOISE_FRAMES, self.device)
        source_noise = None
        if isinstance(self.vocoder, HiFT):
            sines = self.vocoder.config.harmonics + 1
            portion = _NOISE_FRAMES * self.vocoder.samples_per_frame
            source_noise = Noise(seed, sines, portion, self.device)
        return Utterance(prompt, flow_noise, source_noise)

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
        mels = [
            self._kept(utterance, one, result)
            for (utterance, one), result in zip(
                passes, self._graphs.sample(items, frames), strict=True
            )
        ]
        audios = self._voiced(passes, mels)
        return [
            self._added(utterance, one, audio)
            for (utterance, one), audio in zip(passes, audios, strict=True)
        ]

    def _item(self, utterance: Utterance, one: Pass) -> FlowItem:
        prompt = utterance.prompt
        ids = torch.tensor(utterance.speech_ids[: one.ids], device=self.device)
        return FlowItem(
            torch.cat((prompt.speech_ids, ids)),
            prompt.mel,
            prompt.speaker,
            utterance.flow_noise.first(self.frames(utterance, one)),
            utterance.earlier,
            prompt.modulations,
        )

    def _kept(self, utterance: Utterance, one: Pass, result: FlowResult) -> Tensor:
        """The mel of all frames, those that are stable as they were; what to keep is kept."""
        mel = result.mel
        if utterance.mel is not None:
            mel = torch.cat((utterance.mel, mel[len(utterance.mel) :]))
        utterance.mel = mel[: one.stable_frames]
        frames = len(utterance.prompt.mel) + one.stable_frames
        utterance.earlier = EarlierPass(result.x[:, :frames].clone(), frames)
        return mel

    def _voiced(
        self, passes: Sequence[tuple[Utterance, Pass]], mels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Audio [samples] of each mel [frames, 80]."""
        rate = self.vocoder.samples_per_frame
        lengths = torch.tensor([len(mel) for mel in mels])
        if not lengths.any():  # they ended without a word
            return [mel.new_empty(0) for mel in mels]
        mel = pad_sequence(list(mels), batch_first=True)
        if isinstance(self.vocoder, HiFT):
            # The mel of stable frames and their noise are the same in every pass, and so is the
            # phase to which the pitch adds up: nothing of the source has to be kept.
            utterances = [utterance for utterance, _ in passes]
            samples = mel.shape[1] * rate
            noise = torch.stack([_given(it.source_noise).first(samples) for it in utterances])
            lengths = lengths.to(mel.device)
            source = self.vocoder.source(mel, noise, lengths)
            audio = self.vocoder.decode(mel, source, lengths)
        else:
            audio = self.vocoder(mel, lengths)
        return [row[: length * rate] for row, length in zip(audio, map(len, mels), strict=True)]

    def _added(self, utterance: Utterance, one: Pass, audio: Tensor) -> NDArray[np.float32]:
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
        if one.final:
            utterance.forget()
        return added.cpu().numpy()

    def _faded(self, old: Tensor, new: Tensor) -> Tensor:
        """New audio that begins as the old one."""
        length = min(len(old), len(new))
        ramp = self._ramp[:length].to(new.device)
        mixed = old[:length] * (1 - ramp) + new[:length] * ramp
        return torch.cat((mixed, new[length:]))


def _given(noise: Noise | None) -> Noise:
    if noise is None:
        raise ValueError("the utterance was begun for a vocoder without a source")
    return noise
