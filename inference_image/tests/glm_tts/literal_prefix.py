"""The prefix algorithm written straight from its description, which keeps nothing between passes.

Every pass begins by making all passes before it anew, one sequence at a time, without padding,
masks or batches. Slow, and easy to check by reading; the engine must say the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_tts.flow import EarlierPass, Flow, FlowItem
from glm_tts.hift import HiFT

RATE = 480
"""Samples of a mel frame."""


@dataclass(frozen=True)
class Spoken:
    """What is spoken, by whom."""

    prompt_ids: Tensor
    prompt_mel: Tensor
    speaker: Tensor
    speech_ids: Sequence[int]
    flow_noise: Tensor
    """Of at least all frames."""
    source_noise: Tensor
    """Of at least all samples."""


@dataclass(frozen=True)
class Prefix:
    """What one pass makes."""

    x: Tensor
    mel: Tensor
    audio: Tensor
    stable_frames: int
    """Of the speech, without the prompt."""


def prefix(flow: Flow, hift: HiFT, spoken: Spoken, sizes: Sequence[int], index: int) -> Prefix:
    """Pass number `index`, and before it all others."""
    ends = _ends(len(spoken.speech_ids), sizes)
    ids, is_last = ends[index], index == len(ends) - 1
    size = sizes[min(index, len(sizes) - 1)]
    stable = 2 * ids if is_last else 2 * (ids - size // 2)
    before = prefix(flow, hift, spoken, sizes, index - 1) if index else None
    prompt_frames = len(spoken.prompt_mel)
    speech = torch.cat((spoken.prompt_ids, torch.tensor(spoken.speech_ids[:ids])))
    frames = int(len(speech) / 25 * 50)
    earlier = before and EarlierPass(before.x, prompt_frames + before.stable_frames)
    item = FlowItem(speech, spoken.prompt_mel, spoken.speaker, spoken.flow_noise[:frames], earlier)
    result = flow.sample_exact(item)
    mel = result.mel
    if before:
        mel = torch.cat((before.mel[: before.stable_frames], mel[before.stable_frames :]))
    samples = len(mel) * RATE
    source = hift.source(mel[None], spoken.source_noise[None, :samples])
    return Prefix(result.x, mel, hift.decode(mel[None], source)[0], stable)


def stitched(flow: Flow, hift: HiFT, spoken: Spoken, sizes: Sequence[int], fade: int) -> np.ndarray:
    """The audio of an utterance: of each pass what is stable, faded into by the one before."""
    count = len(_ends(len(spoken.speech_ids), sizes))
    passes = [prefix(flow, hift, spoken, sizes, index) for index in range(count)]
    audio = passes[0].audio.numpy().astype(np.float64)
    given = 0
    for before, one in itertools.pairwise(passes):
        cut = max(given, before.stable_frames * RATE - fade)
        given = cut
        new = one.audio.numpy().astype(np.float64)
        for step in range(fade):
            share = (step + 1) / (fade + 1)
            if cut + step < min(len(audio), len(new)):
                new[cut + step] = audio[cut + step] * (1 - share) + new[cut + step] * share
        new[:cut] = audio[:cut]
        audio = new
    return audio


def _ends(total: int, sizes: Sequence[int]) -> list[int]:
    """Speech ids of each pass."""
    ends: list[int] = []
    while not ends or ends[-1] < total:
        end = sum(sizes[min(index, len(sizes) - 1)] for index in range(len(ends) + 1))
        ends.append(min(end, total))
    return ends
