"""Models of random weights, to measure and to test with: they make noise of the right length."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from glm_tts.blocks import FRAMES_PER_ID, IDS_PER_SECOND
from glm_tts.decoder import SpeechVocabulary
from glm_tts.dit import DiTConfig
from glm_tts.engine import Engine, EngineConfig, Speaker
from glm_tts.flow import Flow, FlowConfig
from glm_tts.hift import HiFT, HiFTConfig
from glm_tts.llama import Llama, LlamaConfig


@dataclass(frozen=True)
class ModelSize:
    """Sizes of all parts; the defaults are the published ones."""

    llama: LlamaConfig = field(default_factory=LlamaConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    hift: HiFTConfig = field(default_factory=HiFTConfig)
    vocabulary: SpeechVocabulary = field(default_factory=SpeechVocabulary)


FULL = ModelSize()
TINY = ModelSize(
    LlamaConfig(
        hidden_size=64,
        layers=2,
        query_heads=4,
        key_heads=2,
        head_size=16,
        feed_forward_size=128,
        vocabulary_size=512,
        positions=4096,
    ),
    FlowConfig(
        DiTConfig(
            speech_vocabulary=256,
            text_dim=32,
            text_blocks=1,
            dim=64,
            blocks=2,
            heads=4,
            head_dim=16,
        )
    ),
    HiFTConfig(channels=32, pitch_channels=16),
    SpeechVocabulary(begin=250, stop=251, first=256, size=256),
)
"""A thousandth of the size, for a CPU."""


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, those too that begin as zeros or ones; in place."""
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            deviation = fan_in**-0.5 if parameter.dim() > 1 else 0.02
            parameter.normal_(0, deviation, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.5)
    return module.requires_grad_(False).eval()


def random_hift(config: HiFTConfig, seed: int = 0) -> HiFT:
    """A vocoder whose voice is about as high and as loud as a person's, and is not clipped."""
    hift = HiFT(config)
    randomised(hift, seed)
    parameters = dict(hift.named_parameters())
    with torch.no_grad():
        parameters["f0_predictor.classifier.weight"].mul_(30.0)
        parameters["f0_predictor.classifier.bias"].fill_(180.0)
        parameters["conv_post.parametrizations.weight.original0"].mul_(0.1)
        parameters["conv_post.bias"].fill_(-3.0)
    return hift


def random_engine(
    size: ModelSize,
    config: EngineConfig,
    device: torch.device | str = "cpu",
    llama_dtype: torch.dtype = torch.float32,
    flow_dtype: torch.dtype = torch.float32,
) -> Engine:
    """An engine of random weights.

    Args:
        llama_dtype: of the language model and its cache.
        flow_dtype: in which the flow multiplies.
    """
    with torch.device(device):
        llama, flow, hift = Llama(size.llama), Flow(size.flow), random_hift(size.hift)
    randomised(llama)
    randomised(flow)
    flow.fuse(flow_dtype)
    hift.fold()
    return Engine(llama.to(llama_dtype), flow, hift, size.vocabulary, config)


def random_speaker(engine: Engine, size: ModelSize, seconds: float = 5.0, seed: int = 0) -> Speaker:
    """A voice from a reference clip of some length, whose transcript has 4 text ids a second."""
    generator = torch.Generator().manual_seed(seed)
    ids = round(IDS_PER_SECOND * seconds)
    frames = ids * FRAMES_PER_ID
    speech_ids = torch.randint(size.vocabulary.size, (ids,), generator=generator)
    mel = torch.randn(frames, size.flow.estimator.mel_bins, generator=generator)
    speaker = torch.randn(size.flow.estimator.speaker_dim, generator=generator)
    text_ids = torch.randint(size.vocabulary.stop, (round(4 * seconds),), generator=generator)
    prompt = engine.synthesizer.prompt(speech_ids, mel, speaker)
    return Speaker(tuple(text_ids.tolist()), tuple(speech_ids.tolist()), prompt)
