"""CUDA graphs: the kernels of a function recorded once and replayed without the host's work.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Graph = torch.cuda.CUDAGraph

_WARM_UP_RUNS = 2


class Recorder:
    """Records graphs that share their memory: of those, one may run at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], object]) -> Graph:
        """A graph of a function that reads and writes tensors of fixed addresses only.

        The function is also run, since libraries set themselves up when they are first called.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            function()
        return graph
