"""AdapterBias: a vector added to each token, scaled by a number that is read off the token.

Fu et al. 2022 (arXiv 2205.00305): ``y + alpha(x) v`` after the second matrix of a feed-forward part, whose input is x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, features, like
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class TokenBiasConfig(TunerConfig):
    """Targets are linear layers."""

    type_name: ClassVar[str] = "PSEL_TOKENBIAS"


class TokenBiasLayer(TunerLayer):
    """A linear layer and its token-dependent biases, of which the vector is zero at first."""

    adapter_layer_names = ("psel_tokenbias_alpha", "psel_tokenbias_vector")
    parameter_names = ("psel_tokenbias_vector",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """The linear map to a number, and the vector."""
        read, width = features(self.get_base_layer())
        return {"alpha": nn.Linear(read, 1), "vector": nn.Parameter(torch.zeros(width))}

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output, shifted."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            alpha = self.leaf("alpha", adapter)
            result = result + (alpha(like(states, alpha)) * self.leaf("vector", adapter)).to(result.dtype)
        return result


class TokenBiasModel(Tuner):
    """The tuner."""

    prefix = "psel_tokenbias_"
    tuner_layer_cls = TokenBiasLayer


register_tuner(TokenBiasConfig, TokenBiasModel)
