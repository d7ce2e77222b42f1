"""A whole model, from its folder to what the engine runs.

Sizes that the published configuration leaves to its code, such as the flow's width, are those of
the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from glm_tts.checkpoint import (
    FLOW_CONFIG,
    MANIFEST,
    Checkpoint,
    CheckpointError,
    Fault,
    Spec,
    check,
    layout_of,
    llm_layout,
    load_module,
    open_checkpoint,
    sha256,
)
from glm_tts.decoder import SpeechVocabulary
from glm_tts.engine import Engine, EngineConfig, Speaker
from glm_tts.flow import Flow, FlowConfig
from glm_tts.hift import HiFT, HiFTConfig
from glm_tts.llama import Llama, LlamaConfig, fused
from glm_tts.speaker import SpeakerEncoder
from glm_tts.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from glm_tts.text import FrontEnd, Mode, PhonemeTables, TextTokenizer
from glm_tts.vocoder import Vocoder
from glm_tts.vocos import Vocos2D
from glm_tts.voice import Voice, VoiceMaker

TEXT_TOKENIZER = "vq32k-phoneme-tokenizer"
SPEAKER_MODEL = "frontend/campplus.onnx"
VOCOS = "vocos2d/generator_jit.ckpt"
TABLES = "configs"

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is run."""

    device: str = "cpu"
    sample_rate_hz: Literal[24000, 32000] = 24000
    """Which vocoder speaks: HiFT at 24 kHz, or Vocos2D at 32 kHz."""
    llama_dtype: torch.dtype = torch.float32
    """Of the language model and its cache; bfloat16 on a GPU."""
    flow_dtype: torch.dtype = torch.float32
    """In which the flow multiplies; bfloat16 is audible as hiss in some voices."""
    text_mode: Mode = "improved"


@dataclass(frozen=True)
class Model:
    """All parts, loaded."""

    front_end: FrontEnd
    voices: VoiceMaker
    engine: Engine

    def speaker(self, voice: Voice) -> Speaker:
        """A voice as the engine takes it, on its device."""
        synthesizer = self.engine.synthesizer
        mel = voice.mel(synthesizer.vocoder.sample_rate_hz)
        prompt = synthesizer.prompt(voice.speech_ids, mel, voice.speaker)
        return Speaker(tuple(voice.text_ids.tolist()), tuple(voice.speech_ids.tolist()), prompt)


def load(folder: Path, options: ModelOptions, config: EngineConfig) -> Model:
    """Read a checkpoint, published or bundled.

    Raises:
        CheckpointError: with everything that is missing, damaged or does not fit.
        TextDataError: the text tokenizer or a table is faulty.
        SpeakerModelError: the speaker encoder is not one.
    """
    checkpoint = open_checkpoint(folder)
    sizes = Sizes.of(checkpoint)
    _check(checkpoint, sizes, options)
    tokenizer = TextTokenizer.from_directory(folder / TEXT_TOKENIZER)
    front_end = FrontEnd(tokenizer, options.text_mode, _tables(folder))
    llama = load_module(
        lambda: Llama(sizes.llama),
        fused(checkpoint.tensors("llm"), sizes.llama),
        checkpoint.weights_file("llm"),
        options.llama_dtype,
    )
    llama.to(options.device).pack()
    flow = _loaded(checkpoint, "flow", lambda: Flow(sizes.flow)).to(options.device)
    flow.fuse(options.flow_dtype)
    listener = _loaded(checkpoint, "speech_tokenizer", lambda: SpeechTokenizer(sizes.listener))
    encoder = SpeakerEncoder(checkpoint.path(SPEAKER_MODEL))
    made_with = f"{_digest(checkpoint)} {options.text_mode}"
    engine = Engine(
        llama,
        flow,
        _vocoder(checkpoint, sizes, options),
        _ids(tokenizer, sizes.llama),
        config,
    )
    voices = VoiceMaker(
        listener.to(options.device), encoder, front_end.prompt_ids, settings=made_with
    )
    return Model(front_end, voices, engine)


@dataclass(frozen=True)
class Sizes:
    """Configurations of all parts that have one."""

    llama: LlamaConfig
    listener: SpeechTokenizerConfig
    flow: FlowConfig
    hift: HiFTConfig

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Sizes:
        """What a checkpoint's configurations say, completed by the shapes of its tensors."""
        return cls(
            LlamaConfig.from_hf(checkpoint.config("llm/config.json")),
            SpeechTokenizerConfig.from_files(
                checkpoint.config("speech_tokenizer/config.json"),
                checkpoint.config("speech_tokenizer/preprocessor_config.json"),
            ),
            _flow_config(checkpoint),
            _hift_config(_layout(checkpoint, "hift")),
        )


def _flow_config(checkpoint: Checkpoint) -> FlowConfig:
    config = FlowConfig.from_arguments(checkpoint.config(FLOW_CONFIG))
    layout, estimator = _layout(checkpoint, "flow"), config.estimator
    dim = _size(layout, "estimator.emb_concator.proj.weight", 0, estimator.dim)
    return replace(
        config,
        estimator=replace(
            estimator,
            dim=dim,
            heads=dim // estimator.head_dim,
            blocks=_count(layout, r"estimator\.transformer_blocks\.(\d+)\.") or estimator.blocks,
            text_blocks=_count(layout, r"estimator\..*text_blocks\.(\d+)\.")
            or estimator.text_blocks,
        ),
    )


def _hift_config(layout: Mapping[str, Spec]) -> HiFTConfig:
    default = HiFTConfig()
    weight = "parametrizations.weight.original1"
    return replace(
        default,
        channels=_size(layout, f"conv_pre.{weight}", 0, default.channels),
        pitch_channels=_size(layout, "f0_predictor.classifier.weight", 1, default.pitch_channels),
    )


def _layout(checkpoint: Checkpoint, part: str) -> Mapping[str, Spec]:
    """Empty for a part that cannot be read: `_check` says why, with all that is wrong."""
    try:
        return checkpoint.layout(part)
    except CheckpointError:
        return {}


def _size(layout: Mapping[str, Spec], name: str, dimension: int, default: int) -> int:
    """A tensor's size; of one that is missing, the default: it is reported as missing later."""
    return layout[name][1][dimension] if name in layout else default


def _count(layout: Mapping[str, Spec], pattern: str) -> int:
    """How many numbered modules there are."""
    return len({match[1] for name in layout if (match := re.match(pattern, name))})


def _check(checkpoint: Checkpoint, sizes: Sizes, options: ModelOptions) -> None:
    """All that is wrong with a checkpoint, before any of it is loaded."""
    expected = {
        "llm": llm_layout(sizes.llama),
        "speech_tokenizer": layout_of(
            lambda: SpeechTokenizer(sizes.listener), "speech_tokenizer/config.json"
        ),
        "flow": layout_of(lambda: Flow(sizes.flow), FLOW_CONFIG),
    }
    files = [f"{TEXT_TOKENIZER}/tokenizer.model", SPEAKER_MODEL]
    if options.sample_rate_hz == sizes.hift.sample_rate_hz:
        expected["hift"] = layout_of(lambda: HiFT(sizes.hift), checkpoint.weights_file("hift"))
    else:
        files.append(VOCOS)
    check(checkpoint, expected, files)


def _loaded(checkpoint: Checkpoint, part: str, make: Callable[[], _Module]) -> _Module:
    return load_module(make, checkpoint.tensors(part), checkpoint.weights_file(part))


def _vocoder(checkpoint: Checkpoint, sizes: Sizes, options: ModelOptions) -> Vocoder:
    if options.sample_rate_hz == Vocos2D.sample_rate_hz:
        return Vocos2D.load(checkpoint.path(VOCOS), options.device)
    hift = _loaded(checkpoint, "hift", lambda: HiFT(sizes.hift)).to(options.device)
    hift.fold()
    return hift


def _tables(folder: Path) -> PhonemeTables | None:
    """Of phoneme mode, which not every checkpoint has the tables for."""
    directory = folder / TABLES
    return PhonemeTables.from_directory(directory) if directory.is_dir() else None


def _ids(tokenizer: TextTokenizer, llama: LlamaConfig) -> SpeechVocabulary:
    ids = tokenizer.special_ids
    if ids.last_speech >= llama.vocabulary_size:
        problem = (
            f"gives speech the ids up to {ids.last_speech}, the model has {llama.vocabulary_size}"
        )
        fix = "take tokenizer and weights from the same release"
        raise CheckpointError([Fault(f"{TEXT_TOKENIZER}/tokenizer_config.json", problem, fix)])
    size = ids.last_speech - ids.first_speech + 1
    return SpeechVocabulary(ids.begin_of_audio, ids.stop, ids.first_speech, size)


def _digest(checkpoint: Checkpoint) -> str:
    """What tells one release of the model from another."""
    manifest = checkpoint.folder / MANIFEST
    return sha256(manifest) if manifest.is_file() else checkpoint.folder.name
