"""Decodes the speech ids of many streams side by side, one id for each at a time.

The streams that are being decoded take the first rows of the cache, without gaps: when one ends,
the last row moves to its place. A step has one of few shapes (a number of rows, a length of cache
that is read), so that a CUDA graph of each can be recorded in advance; what differs between streams
lies in tensors of fixed addresses, and the host learns what was drawn one step later, while the
device is busy with the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from glm_tts.graphs import Graph, Recorder
from glm_tts.llama import KeyValueCache, Llama
from glm_tts.sampling import DRAWS_PER_STEP, SamplingConfig, sample


@dataclass(frozen=True)
class SpeechVocabulary:
    """Where the speech ids lie in the model's vocabulary; the defaults are GLM-TTS's."""

    begin: int = 59260
    """Ends the text, begins the speech."""
    stop: int = 59253
    """Ends the speech."""
    first: int = 61498
    """Speech id 0."""
    size: int = 32768
    """Number of speech ids."""


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder may use, and which short cuts it takes."""

    rows: int = 32
    """Streams that are decoded side by side."""
    length: int = 3072
    """Ids of one stream, prompt and speech together."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    speech_only: bool = True
    """Whether only speech ids and the stop can be drawn: a third of the last projection, and no
    id that would not be speech. Without it the whole vocabulary competes, as in the reference."""
    graphs: bool = True
    """Whether steps are recorded as CUDA graphs. Without a GPU there are none."""
    prefix_bytes: int = 256 * 2**20
    """For keys and values of prompts that several streams begin with."""

    def row_buckets(self) -> list[int]:
        """Numbers of rows that a step may have: powers of two, from 16 on multiples of 8."""
        small = [bucket for bucket in (1, 2, 4, 8) if bucket < self.rows]
        return [*small, *range(16, self.rows, 8), self.rows]

    def length_buckets(self) -> list[int]:
        """Lengths of cache that a step may read."""
        return [*_doubled(256, self.length), self.length]


def _doubled(first: int, limit: int) -> list[int]:
    lengths = [first]
    while lengths[-1] * 2 < limit:
        lengths.append(lengths[-1] * 2)
    return [length for length in lengths if length < limit]


class _Rows:
    """What differs between the streams of a step, a row each."""

    def __init__(self, rows: int, steps: int, window: int, device: torch.device) -> None:
        integers = {"dtype": torch.int64, "device": device}
        self.ids = torch.zeros(rows, **integers)
        """Drawn last, and not read yet."""
        self.positions = torch.zeros(rows, **integers)
        """Of that id."""
        self.drawn = torch.zeros(rows, **integers)
        """Number of ids drawn so far."""
        self.minimum = torch.zeros(rows, **integers)
        """Number of ids before which the stop cannot come."""
        self.recent = torch.zeros(rows, window, **integers)
        """What was drawn last, as indices of the choices, in a ring; -1 where there was less."""
        self.uniform = torch.zeros(rows, steps, DRAWS_PER_STEP, device=device)
        """The random numbers of all its steps."""

    def tensors(self) -> list[Tensor]:
        return [self.ids, self.positions, self.drawn, self.minimum, self.recent, self.uniform]

    def move(self, source: int, target: int) -> None:
        for tensor in self.tensors():
            tensor[target] = tensor[source]


class Drawn:
    """The ids that one step drew, on their way to the host."""

    def __init__(self, ids: Tensor) -> None:
        self._event = torch.cuda.Event() if ids.is_cuda else None
        self._ids = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=ids.is_cuda)
        self._ids.copy_(ids, non_blocking=True)
        if self._event:
            self._event.record()

    def ids(self) -> list[int]:
        """Ids of the vocabulary, one of each row; waits for them."""
        if self._event:
            self._event.synchronize()
        return self._ids.tolist()


class Decoder:
    """A language model with a cache, and the streams that it is decoding.

    Not safe to use from several threads at once.

    Raises:
        ValueError: the cache is longer than the model's positions.
    """

    def __init__(self, llama: Llama, vocabulary: SpeechVocabulary, config: DecoderConfig) -> None:
        if config.length > llama.config.positions:
            raise ValueError(
                f"length: {config.length}, the model has {llama.config.positions} positions"
            )
        weight = llama.embedding.weight
        self.config, self.active = config, 0
        self._llama, self._vocabulary = llama, vocabulary
        self._choices, self._stop = _choices(llama, vocabulary, config)
        head = llama.head.weight[self._choices] if config.speech_only else llama.head.weight
        self._head_bytes = head.numel() * head.element_size()
        self._head = llama.projection(head)
        self._cache = KeyValueCache(
            llama.config, config.rows, config.length, weight.device, weight.dtype
        )
        self._rows = _Rows(config.rows, config.length, config.sampling.window, weight.device)
        self._prefixes = _Prefixes(config.prefix_bytes)
        self._graphs: dict[tuple[int, int], Graph] = {}
        # Cached positions that each row's next step reads, the one that it writes included.
        self._lengths: list[int] = []

    @property
    def bytes(self) -> int:
        """Of the cache."""
        return self._cache.bytes

    @property
    def device(self) -> torch.device:
        return self._choices.device

    def step_bytes(self, rows: int, length: int) -> int:
        """What a step has to read: every weight that all rows share once, and the cache.

        Args:
            length: ids of each row.
        """
        cache = rows * length * self.bytes // (self.config.rows * self.config.length)
        return self._llama.block_bytes + self._head_bytes + cache

    @torch.inference_mode()
    def record(self) -> None:
        """Record a graph of every shape that a step may have. On a CPU there is nothing to do."""
        if not self.config.graphs or self.device.type != "cuda":
            return
        recorder = Recorder()
        # The largest first: the others then fit into its memory.
        for rows in reversed(self.config.row_buckets()):
            for length in reversed(self.config.length_buckets()):
                advance = partial(self._advance, rows, length)
                self._graphs[rows, length] = recorder.record(advance)

    @torch.inference_mode()
    def join(self, prompt: Sequence[int], uniform: Tensor, minimum: int, shared: int = 0) -> Drawn:
        """Begin a stream in row `active`: read its prompt, and draw its first id.

        Args:
            prompt: ids of the vocabulary.
            uniform: random numbers of all its steps, [steps, DRAWS_PER_STEP].
            minimum: ids before which it cannot stop.
            shared: so many of the first ids are a prompt that other streams begin with as well.

        Raises:
            ValueError: there is no free row, or the prompt leaves no room to speak.
        """
        row = self.active
        if row == self.config.rows:
            raise ValueError(f"all {row} rows are taken")
        if len(prompt) >= self.config.length:
            raise ValueError(f"prompt: {len(prompt)} ids, at most {self.config.length - 1} fit")
        hidden = self._read(prompt, row, shared)
        rows = self._rows
        rows.positions[row] = len(prompt) - 1
        rows.drawn[row] = 0
        rows.minimum[row] = minimum
        rows.recent[row] = -1
        rows.uniform[row, : len(uniform)] = uniform.to(rows.uniform.device)[: self.config.length]
        self._draw(hidden, slice(row, row + 1))
        self.active += 1
        self._lengths.append(len(prompt) + 1)
        return Drawn(rows.ids[row : row + 1])

    @torch.inference_mode()
    def leave(self, row: int) -> int:
        """End the stream of a row; the stream of the row that is returned takes its place."""
        last = self.active - 1
        if row != last:
            self._cache.move(last, row, self._lengths[last])
            self._rows.move(last, row)
            self._lengths[row] = self._lengths[last]
        self._lengths.pop()
        self.active = last
        return last

    @torch.inference_mode()
    def step(self) -> Drawn:
        """Draw the next id of every active row. Each must have room for it."""
        rows = _at_least(self.active, self.config.row_buckets())
        length = _at_least(max(self._lengths), self.config.length_buckets())
        graph = self._graphs.get((rows, length))
        if graph:
            graph.replay()
        else:
            self._advance(rows, length)
        self._lengths = [length + 1 for length in self._lengths]
        return Drawn(self._rows.ids[: self.active])

    def _read(self, prompt: Sequence[int], row: int, shared: int) -> Tensor:
        """Prefill; what others begin with too is taken from, or kept for, them."""
        ids = torch.tensor(prompt, device=self.device)
        key = tuple(prompt[:shared])
        known = self._prefixes.get(key)
        if known:
            self._cache.restore(row, known)
            return self._llama.prefill(ids[shared:], self._cache, row, shared)
        hidden = self._llama.prefill(ids, self._cache, row)
        if shared:
            self._prefixes.put(key, self._cache.saved(row, shared))
        return hidden

    def _advance(self, rows: int, length: int) -> None:
        state = self._rows
        hidden = self._llama.decode(state.ids[:rows], state.positions[:rows], self._cache, length)
        self._draw(hidden, slice(0, rows))

    def _draw(self, hidden: Tensor, rows: slice) -> None:
        """Draw an id after hidden states [B, H] of some rows, and advance them by it."""
        state, config = self._rows, self.config
        drawn = state.drawn[rows]
        row = torch.arange(len(drawn), device=drawn.device)
        logits = self._head(hidden).float()
        too_early = drawn < state.minimum[rows]
        logits[:, self._stop].masked_fill_(too_early, -torch.inf)
        # Rows without a stream go on idly, and must not leave their tensors.
        uniform = state.uniform[rows][row, drawn.clamp(max=config.length - 1)]
        recent = state.recent[rows]
        chosen = sample(logits, recent, uniform, config.sampling)
        recent[row, drawn % config.sampling.window] = chosen
        state.ids[rows] = self._choices[chosen]
        state.positions[rows] = (state.positions[rows] + 1).clamp(max=config.length - 1)
        state.drawn[rows] = drawn + 1


class _Prefixes:
    """Keys and values of prompts that several streams begin with; the least recently used go."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._known: OrderedDict[tuple[int, ...], tuple[Tensor, Tensor]] = OrderedDict()

    def get(self, ids: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        if ids in self._known:
            self._known.move_to_end(ids)
        return self._known.get(ids)

    def __len__(self) -> int:
        return len(self._known)

    def put(self, ids: tuple[int, ...], saved: tuple[Tensor, Tensor]) -> None:
        self._known[ids] = saved
        self._bytes += _bytes(saved)
        while self._bytes > self._limit_bytes:
            self._bytes -= _bytes(self._known.popitem(last=False)[1])


def _bytes(tensors: tuple[Tensor, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _choices(
    llama: Llama, vocabulary: SpeechVocabulary, config: DecoderConfig
) -> tuple[Tensor, int]:
    """The ids that can be drawn, and the place of the stop among them."""
    device = llama.embedding.weight.device
    if not config.speech_only:
        return torch.arange(llama.config.vocabulary_size, device=device), vocabulary.stop
    speech = torch.arange(vocabulary.first, vocabulary.first + vocabulary.size + 1, device=device)
    speech[-1] = vocabulary.stop
    return speech, vocabulary.size


def _at_least(value: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if bucket >= value)
