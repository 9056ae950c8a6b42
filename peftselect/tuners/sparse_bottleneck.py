"""SparseAdapter: bottleneck adapters most of whose weights are cut off before training and never come back.

He et al. 2022 (arXiv 2210.04284). What is left is held as values and their places, so that an adapter trains and saves
no number that is always zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import features
from peftselect.tuners.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

#: deviation of the second matrix at first: what is pruned by size must have sizes
NARROW = 1e-3


@dataclass
class SparseBottleneckConfig(BottleneckConfig):
    """``sparsity`` is the share of each matrix that is cut off, the smallest by size or at random."""

    type_name: ClassVar[str] = "PSEL_SPARSE"

    sparsity: float = field(default=0.8, metadata={"help": "share of the weights that are cut off"})
    score: str = field(default="magnitude", metadata={"help": "magnitude or random"})


class SparseLinear(nn.Module):
    """A linear layer of which ``kept`` weights are not zero."""

    index: torch.Tensor

    def __init__(self, inputs: int, outputs: int, kept: int, score: str, std: float) -> None:
        super().__init__()
        self.shape = (outputs, inputs)
        dense = torch.randn(outputs * inputs) * std
        ranked = dense.abs() if score == "magnitude" else torch.rand(outputs * inputs)
        # on the meta device nothing is chosen: the places are read from the checkpoint
        places = torch.empty(kept, device=dense.device) if dense.is_meta else ranked.topk(kept).indices.sort().values
        self.register_buffer("index", places.to(torch.int32))
        self.values = nn.Parameter(torch.empty(kept) if dense.is_meta else dense[places].clone())
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``states`` (..., inputs) times the sparse matrix."""
        weight = self.values.new_zeros(self.shape[0] * self.shape[1]).scatter(0, self.index.long(), self.values)
        return nn.functional.linear(states, weight.view(self.shape), self.bias)


class SparseBottleneckLayer(BottleneckLayer):
    """A linear layer and its sparse adapters."""

    adapter_layer_names = ("psel_sparse_down", "psel_sparse_up")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Both matrices, pruned."""
        width, inner = features(self.get_base_layer())[1], config.bottleneck
        kept = kept_weights(width, inner, config.sparsity)
        return {
            "down": SparseLinear(width, inner, kept, config.score, width**-0.5),
            "up": SparseLinear(inner, width, kept, config.score, NARROW),
        }


class SparseBottleneckModel(BottleneckModel):
    """The tuner."""

    prefix = "psel_sparse_"
    tuner_layer_cls = SparseBottleneckLayer


def kept_weights(width: int, inner: int, sparsity: float) -> int:
    """Weights of one matrix that are left."""
    return max(round((1 - sparsity) * width * inner), 1)


register_tuner(SparseBottleneckConfig, SparseBottleneckModel)
