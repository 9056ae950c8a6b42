"""Adapters whose weights a hypernetwork emits, one network for all layers.

Karimi Mahabadi et al. 2021 (HyperFormer, arXiv 2106.04489), after Ha et al. 2016 (arXiv 1609.09106): each place has an
embedding, and a linear map turns it into both matrices and biases of the adapter there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, like
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class HyperConfig(TunerConfig):
    """Targets are linear layers of one output width, whose output the emitted adapter is added to."""

    type_name: ClassVar[str] = "PSEL_HYPER"

    width: int = field(default=0, metadata={"help": "output width of the targets"})
    bottleneck: int = field(default=24, metadata={"help": "inner width of the emitted adapters"})
    embedding_size: int = field(default=16, metadata={"help": "size of the embedding of a place"})
    activation: str = field(default="gelu_new", metadata={"help": "transformers' name of the inner activation"})

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers of what is emitted: first matrix, its bias, second matrix, its bias."""
        return self.width * self.bottleneck, self.bottleneck, self.bottleneck * self.width, self.width


class HyperLayer(TunerLayer):
    """A linear layer and the embedding of its place."""

    adapter_layer_names = ("psel_hyper_embedding",)
    parameter_names = ("psel_hyper_embedding",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """The embedding."""
        return {"embedding": nn.Parameter(torch.randn(config.embedding_size))}

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output and what the emitted adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            config, generator = self.configs[adapter], self.tuner.shared("generator", adapter)
            emitted = generator(self.leaf("embedding", adapter)).split(config.sizes)
            down, up = emitted[0].view(config.bottleneck, config.width), emitted[2].view(config.width, -1)
            inner = ACT2FN[config.activation](functional.linear(like(result, generator), down, emitted[1]))
            result = result + functional.linear(inner, up, emitted[3]).to(result.dtype)
        return result


class HyperModel(Tuner):
    """The tuner, which holds the hypernetwork."""

    prefix = "psel_hyper_"
    tuner_layer_cls = HyperLayer
    uses_shared_state = True
    shared_modules = ("psel_hyper_generator",)

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """A linear map without bias; what it emits for second matrices is zero at first."""
        first = config.sizes[0]
        generator = nn.Linear(config.embedding_size, sum(config.sizes), bias=False)
        nn.init.zeros_(generator.weight)
        with torch.no_grad():
            generator.weight[:first].uniform_(-1, 1).mul_(1 / math.sqrt(config.width * config.embedding_size))
        return {"generator": generator}


register_tuner(HyperConfig, HyperModel)
