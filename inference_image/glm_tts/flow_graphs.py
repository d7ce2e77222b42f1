"""The flow's integration recorded as CUDA graphs, one for each number and length of sequences.

A step of the estimator is some four hundred small kernels; for a few short sequences the host needs
longer to launch them than the device to run them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_tts.flow import Flow, FlowBatch, FlowItem, FlowResult
from glm_tts.graphs import Graph, Recorder


@dataclass(frozen=True)
class _Recorded:
    """A graph, what it reads and what it writes."""

    graph: Graph
    batch: FlowBatch
    end: Tensor
    taken: Tensor


class FlowGraphs:
    """Samples by a graph where there is one that fits, and as `Flow.sample` otherwise."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    @torch.inference_mode()
    def record(self, rows: Sequence[int], frames: Sequence[int]) -> None:
        """Record graphs for these numbers of sequences, padded to these lengths."""
        recorder = Recorder()
        # The largest first: the others then fit into its memory.
        for count, length in sorted(((r, f) for r in rows for f in frames), key=math.prod)[::-1]:
            batch = self._flow.prepare([self._silent(length)] * count, frames=length)
            outputs: list[Tensor] = []

            def integrate(batch: FlowBatch = batch, outputs: list[Tensor] = outputs) -> None:
                outputs[:] = self._flow.integrate(batch)

            graph = recorder.record(integrate)
            self._recorded[count, length] = _Recorded(graph, batch, *outputs)

    @torch.inference_mode()
    def sample(self, items: Sequence[FlowItem], frames: int | None) -> list[FlowResult]:
        """As `Flow.sample`."""
        rows = min((r for r, f in self._recorded if f == frames and r >= len(items)), default=None)
        if rows is None or frames is None:
            return self._flow.sample(items, frames=frames)
        recorded = self._recorded[rows, frames]
        # Rows that are left over do what the last one does.
        padded = [*items, *[items[-1]] * (rows - len(items))]
        recorded.batch.copy_(self._flow.prepare(padded, frames=frames))
        recorded.graph.replay()
        return self._flow.results(items, recorded.end, recorded.taken)

    def _silent(self, frames: int) -> FlowItem:
        """A sequence of at most so many frames, of nothing in particular."""
        config, device = self._flow.config, next(self._flow.parameters()).device
        ids = frames * config.speech_ids_per_second // config.frames_per_second
        bins = config.estimator.mel_bins
        return FlowItem(
            torch.zeros(ids, dtype=torch.int64, device=device),
            torch.zeros(1, bins, device=device),
            torch.ones(config.estimator.speaker_dim, device=device),
            torch.zeros(config.frames(ids), bins, device=device),
        )
