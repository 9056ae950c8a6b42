"""Bottleneck adapters: ``up(act(down(x)))`` after a sub-layer (sequential) or beside it (parallel).

Sequential: Houlsby et al. 2019 (arXiv 1902.00751), Pfeiffer et al. 2021 (2005.00247). Parallel: He et al. 2022
(2110.04366), where ``x`` is what the feed-forward part reads.
"""

from __future__ import annotations

import math
import re
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
class BottleneckConfig(TunerConfig):
    """Targets are linear layers whose output the adapter is added to.

    ``input_modules`` makes it a parallel adapter: a pattern of the linear layers whose input it reads, the first of
    each feed-forward part.
    """

    type_name: ClassVar[str] = "PSEL_BOTTLENECK"

    bottleneck: int = field(default=64, metadata={"help": "inner width"})
    activation: str = field(default="relu", metadata={"help": "transformers' name of the inner activation"})
    scale: float = field(default=1.0, metadata={"help": "factor on the adapter's output"})
    input_modules: str | None = field(default=None, metadata={"help": "pattern of the layers whose input is read"})


class BottleneckLayer(TunerLayer):
    """A linear layer and its adapters. The second matrix is zero at first, so that training starts at the base."""

    adapter_layer_names = ("psel_bottleneck_down", "psel_bottleneck_up")
    #: input of the sub-layer that ends here, caught on its way in; used once
    caught: torch.Tensor | None = None

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Both matrices with their biases."""
        return self.bottleneck(features(self.get_base_layer())[1], config)

    def bottleneck(self, width: int, config: Any) -> Mapping[str, nn.Module]:
        """The matrices of an adapter for states of ``width``."""
        down, up = nn.Linear(width, config.bottleneck), nn.Linear(config.bottleneck, width)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        for tensor in (down.bias, up.weight, up.bias):
            nn.init.zeros_(tensor)
        return {"down": down, "up": up}

    def change(self, adapter: str, states: torch.Tensor) -> torch.Tensor:
        """What one adapter adds, for states of shape (..., width)."""
        config, down, up = self.configs[adapter], self.leaf("down", adapter), self.leaf("up", adapter)
        changed: torch.Tensor = up(ACT2FN[config.activation](down(like(states, down)))) * config.scale
        return changed

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output and what the adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        before, self.caught = self.caught, None
        for adapter in self.working:
            source = result if before is None or not self.configs[adapter].input_modules else before
            result = result + self.change(adapter, source).to(result.dtype)
        return result


class BottleneckModel(Tuner):
    """The tuner; for parallel adapters it also listens where the feed-forward parts begin."""

    prefix = "psel_bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As every tuner does, and join each layer to the place where its sub-layer begins."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        if pattern := self.peft_config[adapter_name].input_modules:
            catch_inputs(model, pattern, self.tuner_layer_cls)


def catch_inputs(model: nn.Module, pattern: str, layer_class: type[Any]) -> None:
    """Hand the input of each module that ``pattern`` matches to the parallel layer in the same block.

    A block is what comes before the last index in a module's name.
    """
    layers = {
        _block(layer.key): layer
        for layer in model.modules()
        if isinstance(layer, layer_class) and any(config.input_modules for config in layer.configs.values())
    }
    for name, module in model.named_modules():
        if re.fullmatch(pattern, name) and not getattr(module, "_psel_listened", False):
            module.register_forward_pre_hook(Catch(layers[_block(name)]))
            module._psel_listened = True


class Catch:
    """A hook that remembers a module's input; an object, not a function, so that copies of a model copy it right."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.layer.caught = inputs[0]


def _block(name: str) -> str:
    """The part of a module's name up to its last index."""
    return name[: [found.end() for found in re.finditer(r"\.\d+(?=\.)", name)][-1]]


register_tuner(BottleneckConfig, BottleneckModel)
