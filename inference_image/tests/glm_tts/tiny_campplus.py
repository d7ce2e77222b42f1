"""A graph with CAM++'s inputs and outputs that is small and easy to compute otherwise."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(size=(80, 192)).astype(np.float32)


def model(
    *,
    name: str = "input",
    shape: tuple[str | int, ...] = (1, "frames", 80),
    kind: int = TensorProto.FLOAT,
    weight: np.ndarray = WEIGHT,
    inputs: int = 1,
) -> bytes:
    """The mean over time of the absolute values of a linear map: [1, T, 80] → [1, 192]."""
    nodes = [
        helper.make_node("MatMul", [name, "weight"], ["signed"]),
        helper.make_node("Abs", ["signed"], ["mapped"]),
        helper.make_node("ReduceMean", ["mapped"], ["output"], axes=[1], keepdims=0),
    ]
    taken = [helper.make_tensor_value_info(name, kind, shape)]
    taken += [helper.make_tensor_value_info(f"more_{it}", kind, shape) for it in range(1, inputs)]
    given = [helper.make_tensor_value_info("output", kind, None)]
    if kind == TensorProto.DOUBLE:
        weight = weight.astype(np.float64)
    weights = [numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "campplus", taken, given, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return made.SerializeToString()
