"""`python -m inference_image.tests.glm_tts.speed`: the engine's parts beside plainer ones.

Decoding beside transformers' `generate` with its static cache; flow and vocoder beside their
literal versions. Full size, random weights, float32 on a CPU, the same threads, in turn in one run;
prints seconds and ratios, and how far the results are apart. Takes 14 GB of memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from glm_tts.decoder import Decoder, DecoderConfig, SpeechVocabulary
from glm_tts.flow import Flow, FlowConfig, FlowItem
from glm_tts.hift import HiFT
from glm_tts.llama import Llama, LlamaConfig, fused
from glm_tts.sampling import SamplingConfig
from inference_image.tests.glm_tts import literal_flow, literal_hift, test_hift
from inference_image.tests.glm_tts.test_dit import random, randomise


def _distance(ours: torch.Tensor, literal: torch.Tensor) -> str:
    return f"at most {(ours - literal).abs().max().item():.1e} apart"


def _first_ids(ours: torch.Tensor, literal: torch.Tensor) -> str:
    """Random weights have near ties; after one is decided otherwise, all ids differ."""
    same = int((ours == literal).long().cumprod(0).sum())
    return f"the first {same} of {len(ours)} ids are the same"


@dataclass(frozen=True)
class Comparison:
    """One thing done in two ways."""

    name: str
    ours: Callable[[], torch.Tensor]
    literal: Callable[[], torch.Tensor]
    compared: Callable[[torch.Tensor, torch.Tensor], str] = _distance

    def run(self, rounds: int) -> str:
        ours, literal = [], []
        compared = self.compared(self.ours(), self.literal())  # and warm
        for _ in range(rounds):
            ours.append(_seconds(self.ours))
            literal.append(_seconds(self.literal))
        fast, slow = min(ours), min(literal)
        return (
            f"{self.name}: {fast:.3f} s, the plainer one {slow:.3f} s, ratio {slow / fast:.2f}; "
            f"{compared}"
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
    speaker = random(192)
    item = FlowItem(
        torch.randint(0, 30_000, (total,)),
        random(2 * prompt_ids, 80),
        speaker,
        random(flow.config.frames(total), 80),
        modulations=flow.modulations(speaker),  # the engine has them from the voice
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


def decoding_comparison(config: LlamaConfig, prompt_ids: int, ids: int) -> Comparison:
    """Greedy ids after one prompt, of the same weights in the same memory."""
    ours = Llama(config).requires_grad_(False)
    theirs: Any = _transformers(config)
    state = fused(theirs.state_dict(), config)
    ours.load_state_dict(state, assign=True)
    ours.head.weight = ours.embedding.weight
    _share(ours, theirs)
    ours.pack()
    prompt = torch.randint(0, config.vocabulary_size, (prompt_ids,))
    greedy = SamplingConfig(nucleus_probability=0, repetition_share=2)
    decoder = Decoder(
        ours,
        SpeechVocabulary(),
        DecoderConfig(rows=1, length=prompt_ids + ids, sampling=greedy, speech_only=False),
    )

    @torch.inference_mode()
    def engine() -> torch.Tensor:
        drawn = decoder.join(prompt.tolist(), torch.zeros(ids, 2), minimum=ids).ids()
        for _ in range(ids - 1):
            drawn += decoder.step().ids()
        decoder.leave(0)
        return torch.tensor(drawn)

    @torch.inference_mode()
    def generate() -> torch.Tensor:
        made = theirs.generate(
            prompt[None],
            attention_mask=torch.ones(1, prompt_ids),
            max_new_tokens=ids,
            min_new_tokens=ids,
            do_sample=False,
            cache_implementation="static",
            disable_compile=True,
        )
        return made[0, prompt_ids:]

    return Comparison(f"decoding, {prompt_ids} + {ids} ids", engine, generate, _first_ids)


def _transformers(config: LlamaConfig) -> transformers.LlamaForCausalLM:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.query_heads,
            num_key_value_heads=config.key_heads,
            head_dim=config.head_size,
            intermediate_size=config.feed_forward_size,
            vocab_size=config.vocabulary_size,
            max_position_embeddings=config.positions,
            rms_norm_eps=config.norm_epsilon,
            tie_word_embeddings=True,
        )
    )
    return model.eval().requires_grad_(False)


def _share(ours: Llama, theirs: Any) -> None:
    """Let transformers' matrices be parts of our fused ones: twice the weights do not fit."""
    parts = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    }
    for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
        for fused_name, names in parts.items():
            whole = block.get_parameter(
                f"{'attention' if fused_name == 'qkv' else 'mlp'}.{fused_name}.weight"
            )
            begin = 0
            for name in names:
                module = layer.get_submodule(name)
                rows = len(module.get_parameter("weight"))
                module.weight = torch.nn.Parameter(whole[begin : begin + rows], False)
                begin += rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ids", type=int, default=40, help="ids that are decoded")
    parser.add_argument("--steps", type=int, default=10, help="ODE steps of the flow")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(decoding_comparison(LlamaConfig(), 200, arguments.ids).run(arguments.rounds), flush=True)
    for frames in (50, 300):
        print(vocoder_comparison(frames).run(arguments.rounds), flush=True)
    for ids, prompt_ids in ((10, 125), (125, 125)):
        print(flow_comparison(ids, prompt_ids, arguments.steps).run(arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
