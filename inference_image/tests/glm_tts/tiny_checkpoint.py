"""Writes a model of random weights in the published layout: `python tiny_checkpoint.py FOLDER`.

It makes noise of the right length. Its tokenizer and tables are small ones of our own.
"""

from __future__ import annotations

import json
import sys
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glm_tts import tensor_file
from glm_tts.checkpoint import llm_layout
from glm_tts.dit import DiTConfig
from glm_tts.flow import Flow, FlowConfig
from glm_tts.hift import HiFTConfig
from glm_tts.llama import LlamaConfig
from glm_tts.random_model import random_hift, randomised
from glm_tts.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from inference_image.tests.glm_tts import tiny_campplus
from inference_image.tests.glm_tts.tiny_tokenizer import write_phoneme_tables, write_tokenizer

LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 34_000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LISTENER = {
    "num_mel_bins": 128,
    "d_model": 16,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "max_source_positions": 1500,
    "quantize_position": 2,
    "pooling_position": 2,
    "pooling_kernel_size": 2,
    "quantize_vocab_size": 500,
}
FLOW_YAML = """\
flow: !new:flow.flow.Flow
  spkr_emb_adaLN: True
  speech_token_cfg: False
  remove_spkr_concat_condition: True
  speech_token_dim: 32
  vocab_size: 32768
  mel_dim: 80
  mel_framerate: 50
  input_frame_rate: 25
"""
FLOW = FlowConfig(
    DiTConfig(
        speech_vocabulary=32_768, text_dim=32, text_blocks=1, dim=64, blocks=2, heads=1, head_dim=64
    )
)
HIFT = HiFTConfig(channels=32, pitch_channels=16)
VOICES = {
    "ming": {"transcript": "你好，今天天气很好。", "language": "Chinese"},
    "ada": {"transcript": "The weather is fine today.", "language": "English"},
}


class Vocos(nn.Module):
    """[B, T, 80] -> [B, 640 T], as the published program for 32 kHz is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(80, 640)

    def forward(self, mel: Tensor) -> Tensor:
        return torch.tanh(self.linear(mel)).flatten(1)


def write_checkpoint(folder: Path) -> Path:
    """Everything that the engine reads; returns the folder."""
    for name in ("llm", "speech_tokenizer", "flow", "hift", "frontend", "voices"):
        (folder / name).mkdir(parents=True)
    _write_json(folder / "llm/config.json", LLAMA)
    _write_tensors(folder / "llm/model.safetensors", _llama())
    _write_json(folder / "speech_tokenizer/config.json", LISTENER)
    _write_json(folder / "speech_tokenizer/preprocessor_config.json", {"feature_size": 128})
    listener = SpeechTokenizer(SpeechTokenizerConfig.from_files(LISTENER, {"feature_size": 128}))
    state = randomised(listener).state_dict()
    weights = {f"model.encoder.{name}": tensor for name, tensor in state.items()}
    _write_tensors(folder / "speech_tokenizer/model.safetensors", weights)
    (folder / "flow/config.yaml").write_text(FLOW_YAML)
    torch.save(_state(randomised(Flow(FLOW))), folder / "flow/flow.pt")
    torch.save(_state(random_hift(HIFT)), folder / "hift/hift.pt")
    (folder / "vocos2d").mkdir()
    with warnings.catch_warnings():
        # torch would have it otherwise; this is how it is published.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Vocos()).save(str(folder / "vocos2d/generator_jit.ckpt"))
    (folder / "frontend/campplus.onnx").write_bytes(tiny_campplus.model())
    write_tokenizer(folder / "vq32k-phoneme-tokenizer")
    write_phoneme_tables(folder / "configs")
    for number, (name, voice) in enumerate(VOICES.items()):
        _write_json(folder / f"voices/{name}.json", voice)
        _write_clip(folder / f"voices/{name}.wav", 180.0 + 40 * number)
    return folder


def _llama() -> dict[str, Tensor]:
    """Random weights, of which greedy decoding does not end at once."""
    generator = torch.Generator().manual_seed(3)
    layout = llm_layout(LlamaConfig.from_hf(LLAMA))
    return {
        name: torch.randn(shape, generator=generator) * 0.3 + (len(shape) == 1)
        for name, (_, shape) in layout.items()
    }


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    tensor_file.write(path, layout, tensors.values())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False))


def _write_clip(path: Path, hertz: float, seconds: float = 2.0, rate: int = 24_000) -> None:
    """A hum with overtones that swells four times a second, as syllables do."""
    time = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
    audio = 0.15 * tones * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((audio * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]))
