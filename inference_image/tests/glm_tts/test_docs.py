"""`docs/engine.md` says the shapes that a request has on its way."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import glm_tts.llama
from glm_tts import decoder as decoding
from glm_tts.blocks import Blocks
from glm_tts.decoder import DecoderConfig
from glm_tts.engine import EngineConfig, Request, Segment
from glm_tts.flow import Flow
from glm_tts.hift import HiFT
from glm_tts.model import ModelOptions, load
from inference_image.tests.glm_tts.tiny_checkpoint import write_checkpoint

PAGE = Path(__file__).parents[3] / "docs/engine.md"
_ROW = re.compile(r"^\| ([^|`]+) \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
ROWS = {what: shape for what, shape, _ in _ROW.findall(PAGE.read_text("utf-8"))}
PLACES = {place for _, _, place in _ROW.findall(PAGE.read_text("utf-8"))}

Shape = tuple[int, ...]


def _shape(text: str, letters: dict[str, int]) -> Shape:
    """`2 B, T, E` with the letters' values."""

    def value(term: str) -> int:
        return int(term) if term.isdigit() else letters[term]

    def product(text: str) -> int:
        factor, _, inner = text.partition(" (")
        if inner:
            first, second = inner.rstrip(")").split(" - ")
            return int(factor) * (value(first) - value(second))
        result = 1
        for term in text.split(" "):
            result *= value(term)
        return result

    def sum_(text: str) -> int:
        if "(" in text:
            return product(text)
        parts = re.split(r" ([+-]) ", text)
        total = product(parts[0])
        for sign, part in zip(parts[1::2], parts[2::2], strict=True):
            total += product(part) if sign == "+" else -product(part)
        return total

    return tuple(sum_(dimension) for dimension in text.split(", "))


class _Seen:
    """Shapes that a run met, by the page's name for them; of each, the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: dict[str, Shape] = {}
        self._monkeypatch = monkeypatch

    def see(self, what: str, tensor: Tensor) -> None:
        self.shapes.setdefault(what, tuple(tensor.shape))

    def watch(self, owner: Any, name: str, look: Callable[[tuple[Any, ...], Any], None]) -> None:
        """Look at the arguments and the result of a function, which is called as ever."""
        original = getattr(owner, name)

        def watched(*args: Any, **others: Any) -> Any:
            result = original(*args, **others)
            look(args, result)
            return result

        self._monkeypatch.setattr(owner, name, watched)


def test_a_request_has_the_shapes_that_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(DecoderConfig(rows=2, length=512), Blocks((6, 9)))
    model = load(write_checkpoint(tmp_path / "model"), ModelOptions(), config)
    engine, seen = model.engine, _Seen(monkeypatch)
    clip = torch.sin(torch.arange(36_000) / 20) * torch.linspace(0.2, 0.3, 36_000)
    voice = model.voices.make(clip.numpy(), 24_000, "你好。")
    seen.see("transcript", voice.text_ids)
    seen.see("speech ids", voice.speech_ids)
    seen.see("prompt mel", voice.mel_24khz)
    seen.see("speaker embedding", voice.speaker)
    seen.see("keys of one layer", engine.decoder._cache.keys[0])

    seen.watch(
        engine.decoder,
        "join",
        lambda args, _: seen.see("prompt", torch.tensor(args[0])),
    )
    llama = engine.decoder._llama
    seen.watch(llama, "prefill", lambda _, out: seen.see("hidden state after it", out))

    def decoded(args: tuple[Any, ...], out: Tensor) -> None:
        seen.see("ids and positions", args[0])
        seen.see("hidden state", out)

    def attended(args: tuple[Any, ...], _: Tensor) -> None:
        if args[0].shape[0] == 2:  # of the step of both rows, not of a prompt
            seen.see("queries, grouped by key head", args[0])
            seen.see("keys that are read", args[1])

    def sampled(args: tuple[Any, ...], out: Tensor) -> None:
        if args[0].shape[0] == 2:
            seen.see("logits", args[0])
            seen.see("recent ids", args[1])
            seen.see("drawn", out)

    def integrated(args: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        seen.see("what no step changes", args[1].fixed)
        seen.see("x before each step", out[1])

    def prepared(args: tuple[Any, ...], _: Any) -> None:
        seen.see("speech ids of the voice and of the pass", args[1][0].speech_ids)
        seen.see("noise", args[1][0].noise)

    seen.watch(llama, "decode", decoded)
    seen.watch(glm_tts.llama.functional, "scaled_dot_product_attention", attended)
    seen.watch(decoding, "sample", sampled)
    seen.watch(Flow, "prepare", prepared)
    seen.watch(Flow, "integrate", integrated)
    seen.watch(Flow, "results", lambda _, out: seen.see("mel without the prompt", out[0].mel))
    seen.watch(HiFT, "source", lambda _, out: seen.see("source", out))
    seen.watch(HiFT, "decode", lambda _, out: seen.see("audio", out))

    # The frames of a pass are not padded to a bucket: the page's T is of the pass itself.
    speaker, text = model.speaker(voice), model.front_end.segments("人果。")[0]
    for seed in range(2):
        engine.speak(Request(speaker, (Segment(tuple(text), 20, 20),), seed))
    while engine.decode():
        pass
    candidates = list(engine._candidates())
    passes = [(one.spoken.utterance, one.made) for one in candidates]
    engine.synthesizer.run(passes)

    cached = config.decoder
    letters = {
        "n": len(text),
        "m": len(voice.text_ids),
        "N": len(voice.speech_ids),
        "s": 6,
        "F": len(voice.mel_24khz),
        "T": candidates[0].frames,
        "B": 2,
        "V": 32_768 + 1,
        "H": llama.config.hidden_size,
        "K": llama.config.key_heads,
        "G": llama.config.queries_per_key,
        "D": llama.config.head_size,
        "L": cached.length_buckets()[0],
        "W": cached.sampling.window,
        "E": engine.synthesizer.flow.config.estimator.dim,
        "S": engine.synthesizer.flow.config.ode_steps,
        "rows": cached.rows,
        "length": cached.length,
    }
    assert seen.shapes == {what: _shape(shape, letters) for what, shape in ROWS.items()}


@pytest.mark.parametrize("place", sorted(PLACES))
def test_every_place_that_the_page_names_is_there(place: str) -> None:
    module, *names = place.split(".")
    found: Any = importlib.import_module(f"glm_tts.{module}")
    for name in names:
        annotations = getattr(found, "__annotations__", {})
        assert hasattr(found, name) or name in annotations, place
        found = getattr(found, name, None)
