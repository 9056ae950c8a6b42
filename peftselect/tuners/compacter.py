"""Compacter: adapters whose matrices are sums of Kronecker products with factors that all layers share.

Karimi Mahabadi et al. 2021 (arXiv 2106.04647): W = sum_i A_i (x) (s_i t_i), with n small A_i for the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers.activations import ACT2FN

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, features, like
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class CompacterConfig(TunerConfig):
    """Targets are linear layers whose output the adapter is added to; ``division`` divides both widths."""

    type_name: ClassVar[str] = "PSEL_COMPACTER"

    bottleneck: int = field(default=24, metadata={"help": "inner width"})
    activation: str = field(default="gelu_new", metadata={"help": "transformers' name of the inner activation"})
    division: int = field(default=4, metadata={"help": "n: how many products a matrix is the sum of"})
    factor_rank: int = field(default=1, metadata={"help": "rank of the factors that each layer has"})


class KroneckerLinear(nn.Module):
    """The layer's own factors of one matrix, and its bias."""

    def __init__(self, inputs: int, outputs: int, division: int, rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(division, inputs // division, rank))
        self.right = nn.Parameter(torch.empty(division, rank, outputs // division))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.left)
        nn.init.xavier_uniform_(self.right)

    def forward(self, states: torch.Tensor, rules: torch.Tensor) -> torch.Tensor:
        """``states`` (..., inputs) times the matrix that ``rules`` (n, n, n) and the factors make."""
        blocks = torch.einsum("nab,ncr,nrd->acbd", rules, self.left, self.right)
        weight = blocks.reshape(states.shape[-1], -1)
        return nn.functional.linear(states, weight.T, self.bias)


class CompacterLayer(TunerLayer):
    """A linear layer and its adapters; the second matrix is zero at first."""

    adapter_layer_names = ("psel_compacter_down", "psel_compacter_up")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """The factors of both matrices."""
        width = features(self.get_base_layer())[1]
        shape = (config.division, config.factor_rank)
        down, up = KroneckerLinear(width, config.bottleneck, *shape), KroneckerLinear(config.bottleneck, width, *shape)
        nn.init.zeros_(up.right)
        return {"down": down, "up": up}

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output and what the adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            rules, down = self.tuner.shared("rules", adapter), self.leaf("down", adapter)
            inner = ACT2FN[self.configs[adapter].activation](down(like(result, down), rules))
            result = result + self.leaf("up", adapter)(inner, rules).to(result.dtype)
        return result


class CompacterModel(Tuner):
    """The tuner, which holds the n matrices that all layers share."""

    prefix = "psel_compacter_"
    tuner_layer_cls = CompacterLayer
    uses_shared_state = True
    shared_parameters = ("psel_compacter_rules",)

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """A_1 .. A_n, each n x n."""
        return {"rules": nn.Parameter(torch.randn(config.division, config.division, config.division) * 0.1)}


register_tuner(CompacterConfig, CompacterModel)
