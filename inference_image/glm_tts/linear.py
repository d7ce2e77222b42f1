"""Linear layers joined into one, and packed as a CPU's kernels read them.

For float32, torch calls MKL, which packs the weights anew in every call, and knows the vector units
of one maker's processors only. oneDNN, which torch has for convolutions, takes weights that were
packed once. The operators are those that torch's own compiler uses, and no public ones: without
them, a module stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def of_weight(weight: Tensor) -> nn.Linear:
    """The layer without bias that has this weight, [outputs, inputs]."""
    layer = nn.Linear(1, 1, bias=False)  # of any size: its weight is replaced
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight, False)
    return layer


def joined(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Layers of one input as a single one, whose outputs follow each other."""
    one = of_weight(torch.cat([layer.weight.detach() for layer in layers]))
    one.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), False)
    return one


class PackedLinear(nn.Module):
    """A float32 linear layer on a CPU, [..., inputs] -> [..., outputs]; its weight cannot be read.

    Args:
        activation: follows it, without another way through memory.
    """

    def __init__(self, linear: nn.Linear, activation: nn.GELU | None = None) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias
        self._after = ("gelu", [], activation.approximate) if activation else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, *self._after)


def is_packable(linear: nn.Linear) -> bool:
    """Whether this machine, and this torch, can pack a layer."""
    weight = linear.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def pack(module: nn.Module) -> None:
    """Packs all linear layers in a module that can be, for good: their weights leave the state."""
    for name, child in module.named_children():
        linear, activation = _linear_and_activation(child)
        if linear is not None and is_packable(linear):
            setattr(module, name, PackedLinear(linear, activation))
        else:
            pack(child)


def _linear_and_activation(module: nn.Module) -> tuple[nn.Linear | None, nn.GELU | None]:
    if isinstance(module, nn.Linear):
        return module, None
    match [*module.children()]:
        case [nn.Linear() as linear, nn.GELU() as activation]:
            return linear, activation
    return None, None
