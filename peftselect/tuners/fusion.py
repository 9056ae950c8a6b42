"""AdapterFusion: attention over the outputs of trained adapters of several tasks, which stay as they are.

Pfeiffer et al. 2021 (arXiv 2005.00247): in every block the feed-forward output asks, each adapter's output answers.
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

#: the stacked weights of the adapters, which are not trained
FROZEN = ("down", "down_bias", "up", "up_bias")


@dataclass
class FusionConfig(TunerConfig):
    """Targets are the linear layers that the fused adapters are after; all adapters are of one make."""

    type_name: ClassVar[str] = "PSEL_FUSION"

    adapters: int = field(default=2, metadata={"help": "number of adapters that are fused"})
    bottleneck: int = field(default=64, metadata={"help": "their inner width"})
    activation: str = field(default="relu", metadata={"help": "their inner activation"})


class FusionLayer(TunerLayer):
    """A linear layer, the adapters after it, and the attention that weighs them."""

    adapter_layer_names = tuple(f"psel_fusion_{name}" for name in (*FROZEN, "query", "key", "value"))
    parameter_names = tuple(f"psel_fusion_{name}" for name in FROZEN)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """Room for the adapters, and three square matrices, the values' an identity at first."""
        width, inner, number = features(self.get_base_layer())[1], config.bottleneck, config.adapters
        value = nn.Linear(width, width, bias=False)
        nn.init.eye_(value.weight)
        sizes = {"down": (inner, width), "down_bias": (inner,), "up": (width, inner), "up_bias": (width,)}
        frozen = tuple(f"psel_fusion_{name}" for name in FROZEN)
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {**self.frozen_peft_weight_names, adapter: frozen}
        room = {name: nn.Parameter(torch.zeros(number, *size)) for name, size in sizes.items()}
        return {**room, "query": nn.Linear(width, width), "key": nn.Linear(width, width), "value": value}

    def fill(self, adapter: str, index: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Put the trained weights of one adapter in its place."""
        for name in FROZEN:
            with torch.no_grad():
                self.leaf(name, adapter)[index].copy_(weights[name])

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output, replaced by the weighted outputs of the adapters."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            part = {name: self.leaf(name, adapter) for name in FROZEN}
            read = like(result, part["down"])
            inner = torch.einsum("...d,nbd->...nb", read, part["down"]) + part["down_bias"]
            changed = torch.einsum("...nb,ndb->...nd", ACT2FN[self.configs[adapter].activation](inner), part["up"])
            outputs = read.unsqueeze(-2) + changed + part["up_bias"]
            query, key = self.leaf("query", adapter)(read), self.leaf("key", adapter)(outputs)
            weight = torch.softmax((key * query.unsqueeze(-2)).sum(-1), dim=-1)
            fused = (weight.unsqueeze(-1) * self.leaf("value", adapter)(outputs)).sum(-2)
            result = fused.to(result.dtype)
        return result


class FusionModel(Tuner):
    """The tuner."""

    prefix = "psel_fusion_"
    tuner_layer_cls = FusionLayer


register_tuner(FusionConfig, FusionModel)
