"""`python -m inference_image.tests.glm_tts.speed`: flow and vocoder beside their literal versions.

Full size, random weights, float32 on a CPU, the same threads, in turn in one run; prints seconds
and ratios, and how far the results are apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from glm_tts.flow import Flow, FlowConfig, FlowItem
from glm_tts.hift import HiFT
from inference_image.tests.glm_tts import literal_flow, literal_hift, test_hift
from inference_image.tests.glm_tts.test_dit import random, randomise


@dataclass(frozen=True)
class Comparison:
    """One thing done in two ways."""

    name: str
    ours: Callable[[], torch.Tensor]
    literal: Callable[[], torch.Tensor]

    def run(self, rounds: int) -> str:
        ours, literal = [], []
        apart = (self.ours() - self.literal()).abs().max().item()  # and warm
        for _ in range(rounds):
            ours.append(_seconds(self.ours))
            literal.append(_seconds(self.literal))
        fast, slow = min(ours), min(literal)
        return (
            f"{self.name}: {fast:.3f} s, literally {slow:.3f} s, ratio {slow / fast:.2f}, "
            f"at most {apart:.1e} apart"
        )


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def flow_comparison(ids: int, prompt_ids: int, steps: int) -> Comparison:
    flow = Flow(FlowConfig(ode_steps=steps))
    randomise(flow)
    state = dict(flow.state_dict())
    flow.fuse()
    total = ids + prompt_ids
    item = FlowItem(
        torch.randint(0, 30_000, (total,)),
        random(2 * prompt_ids, 80),
        random(192),
        random(flow.config.frames(total), 80),
    )
    arguments = (item.speech_ids, item.prompt_mel, item.speaker, item.noise)
    return Comparison(
        f"flow, {prompt_ids} + {ids} speech ids, {steps} steps",
        lambda: flow.sample([item])[0].mel,
        lambda: literal_flow.sample(state, *arguments, steps=steps)[0],
    )


def vocoder_comparison(frames: int) -> Comparison:
    model = HiFT()
    test_hift.randomise(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.fold()
    mel, source = random(1, frames, 80), 0.1 * random(1, 480 * frames)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        model.m_source(model.f0_predictor(mel.transpose(1, 2), None), noise)
        return model.decode(mel, source)

    @torch.no_grad()
    def literal() -> torch.Tensor:
        literal_hift.source(state, literal_hift.pitch(state, mel.transpose(1, 2)))
        return literal_hift.decode(state, mel.transpose(1, 2), source)

    noise = model.m_source.draw_noise(1, 480 * frames)
    return Comparison(f"vocoder, {frames} frames", ours, literal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="ODE steps of the flow")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for frames in (50, 300):
        print(vocoder_comparison(frames).run(arguments.rounds), flush=True)
    for ids, prompt_ids in ((10, 125), (125, 125)):
        print(flow_comparison(ids, prompt_ids, arguments.steps).run(arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
