"""Weighted sum: what a frozen encoder hands on is a mixture of all its layers, of which only the weights are trained.

Yang et al. 2021 (SUPERB, arXiv 2105.01051), after ELMo (Peters et al. 2018): ``sum_i softmax(w)_i h_i`` over the input
of the first block and the output of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class WeightedSumConfig(TunerConfig):
    """The target is the encoder, a module that gives ``last_hidden_state`` and ``hidden_states``."""

    type_name: ClassVar[str] = "PSEL_WEIGHTEDSUM"

    states: int = field(default=0, metadata={"help": "hidden states that are mixed: blocks and one"})


class WeightedSumLayer(TunerLayer):
    """An encoder whose last hidden state is the mixture; the mean of all before training."""

    adapter_layer_names = ("psel_weightedsum_weights",)
    parameter_names = ("psel_weightedsum_weights",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """A number a hidden state."""
        return {"weights": nn.Parameter(torch.zeros(config.states))}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The encoder's output, its last hidden state replaced."""
        if not self.working:
            return self.base_layer(*args, **kwargs)
        outputs = self.base_layer(*args, **{**kwargs, "output_hidden_states": True, "return_dict": True})
        shares = torch.softmax(self.leaf("weights", self.working[-1]).float(), dim=0)
        mixed = torch.zeros_like(outputs.last_hidden_state)
        for share, states in zip(shares, outputs.hidden_states, strict=True):
            mixed = mixed + share.to(states.dtype) * states
        outputs["last_hidden_state"] = mixed
        return outputs


class WeightedSumModel(Tuner):
    """The tuner."""

    prefix = "psel_weightedsum_"
    tuner_layer_cls = WeightedSumLayer


register_tuner(WeightedSumConfig, WeightedSumModel)
