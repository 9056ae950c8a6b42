"""ConvAdapter: grouped convolutions over neighbouring positions and a squeeze-and-excitation gate.

Li et al. 2023 (arXiv 2303.03267), for speech encoders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, features, like
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAVES = ("norm", "first", "second", "third", "squeeze", "excite")
#: the gate's inner width is the model's divided by this, and no less than that
SQUEEZE, NARROWEST = 16, 8


@dataclass
class ConvolutionConfig(TunerConfig):
    """Targets are linear layers whose output the adapter is added to; ``channels`` divides their width."""

    type_name: ClassVar[str] = "PSEL_CONV"

    channels: int = field(default=64, metadata={"help": "inner channels, which are the groups as well"})


class ConvolutionLayer(TunerLayer):
    """A linear layer and its convolutional adapters; the last convolution is zero at first."""

    adapter_layer_names = tuple(f"psel_conv_{name}" for name in _LEAVES)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Norm, convolutions of 3, 5 and 3 positions, and the gate."""
        width, inner = features(self.get_base_layer())[1], config.channels

        def convolution(inputs: int, outputs: int, size: int) -> nn.Conv1d:
            return nn.Conv1d(inputs, outputs, size, groups=inner, bias=False, padding="same")

        third = convolution(inner, width, 3)
        nn.init.zeros_(third.weight)
        squeezed = max(width // SQUEEZE, NARROWEST)
        return {
            "norm": nn.LayerNorm(width),
            "first": convolution(width, inner, 3),
            "second": convolution(inner, inner, 5),
            "third": third,
            "squeeze": nn.Linear(width, squeezed, bias=False),
            "excite": nn.Linear(squeezed, width, bias=False),
        }

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output (batch, positions, width) and what the adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            part = {name: self.leaf(name, adapter) for name in _LEAVES}
            channels = part["norm"](like(result, part["norm"])).transpose(-1, -2)
            channels = part["third"](part["second"](torch.relu(part["first"](channels))))
            gate = torch.sigmoid(part["excite"](nn.functional.gelu(part["squeeze"](channels.mean(-1)))))
            result = result + (channels * gate.unsqueeze(-1)).transpose(-1, -2).to(result.dtype)
        return result


class ConvolutionModel(Tuner):
    """The tuner."""

    prefix = "psel_conv_"
    tuner_layer_cls = ConvolutionLayer


register_tuner(ConvolutionConfig, ConvolutionModel)
