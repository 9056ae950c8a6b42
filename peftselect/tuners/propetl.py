"""ProPETL: one prototype network shared by all layers, of which each layer uses the part that its binary mask shows.

Zeng et al. 2023 (arXiv 2305.17682). The prototype is an adapter, a low-rank update or a prefix, kept as a flat vector.
A layer trains a score for each of its weights; the highest ``density`` of them make the mask, and gradients pass
straight through to the scores. A checkpoint holds the prototype and the masks, eight bits to a byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from peftselect.tuners.base import TunerLayer, features, like
from peftselect.tuners.binary_bottleneck import pack, unpack_bits
from peftselect.tuners.low_rank import LowRankLayer
from peftselect.tuners.prefix import PrefixConfig, PrefixLayer, PrefixModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

Shapes = tuple[tuple[int, int], tuple[int, int]]


@dataclass
class ProConfig(PrefixConfig):
    """``form`` says what the prototype is; ``width`` is that of a prefix's keys."""

    type_name: ClassVar[str] = "PSEL_PROPETL"

    form: Literal["adapter", "lora", "prefix"] = field(default="adapter", metadata={"help": "what the prototype is"})
    inner: int = field(default=48, metadata={"help": "inner width of an adapter, or rank of an update"})
    density: float = field(default=0.5, metadata={"help": "share of the prototype that a layer uses"})
    activation: str = field(default="gelu", metadata={"help": "inner activation of an adapter"})
    scale: float = field(default=1.0, metadata={"help": "factor on what is added"})


class ProLayer(TunerLayer):
    """A layer with scores for the two matrices that it takes from the prototype."""

    adapter_layer_names: tuple[str, ...] = ("psel_propetl_scores",)
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_propetl_scores",)

    def shapes(self, config: Any) -> Shapes:
        """Sizes of both matrices."""
        read, width = features(self.get_base_layer())
        return (config.inner, read if config.form == "lora" else width), (width, config.inner)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """A score for each weight."""
        number = sum(map(math.prod, self.shapes(config)))
        return {"scores": nn.Parameter(torch.rand(number) * 0.02 - 0.01)}

    def matrices(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Both matrices as this layer sees them, and the rest of the prototype (biases)."""
        config, scores = self.configs[adapter], self.leaf("scores", adapter)
        shapes = self.shapes(config)
        prototype = self.tuner.shared("prototype", adapter)[self.tuner.place(adapter, shapes)]
        # the difference is zero to the last digit and has the scores' gradient
        mask = top(scores.detach(), config.density) + (scores - scores.detach())
        masked = prototype[: len(scores)] * mask
        first, second = masked.split([math.prod(shapes[0]), math.prod(shapes[1])])
        return first.view(shapes[0]), second.view(shapes[1]), prototype[len(scores) :]


class ProAdapterLayer(ProLayer):
    """A linear layer with masked bottleneck adapters after it."""

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output and what the adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working:
            config = self.configs[adapter]
            down, up, biases = self.matrices(adapter)
            inner = functional.linear(like(result, down), down, biases[: config.inner])
            added = functional.linear(ACT2FN[config.activation](inner), up, biases[config.inner :])
            result = result + (added * config.scale).to(result.dtype)
        return result


class ProLoraLayer(LowRankLayer, ProLayer):
    """A linear layer with masked low-rank updates beside it."""

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The masked matrices."""
        down, up, _ = self.matrices(adapter)
        return down, up


class ProPrefixLayer(ProLayer, PrefixLayer):
    """An attention module with masked prefixes."""

    def shapes(self, config: Any) -> Shapes:
        """Keys and values."""
        size = (config.num_virtual_tokens, config.width)
        return size, size

    def prefix(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of (tokens, width)."""
        keys, values, _ = self.matrices(adapter)
        return keys, values

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The attention module's own."""
        return PrefixLayer.forward(self, *args, **kwargs)


class ProModel(PrefixModel):
    """The tuner, which holds the prototype: for low-rank updates one for each shape of layer, end to end."""

    prefix = "psel_propetl_"
    tuner_layer_cls = TunerLayer
    uses_shared_state = True
    shared_modules = ()
    shared_parameters = ("psel_propetl_prototype",)
    #: for each adapter where the prototype of each shape lies
    places: dict[str, dict[Shapes, slice]]

    def make_layer(self, base_layer: nn.Module, key: str, config: Any) -> TunerLayer:
        """The layer of the configuration's form."""
        kinds = {"adapter": ProAdapterLayer, "lora": ProLoraLayer, "prefix": ProPrefixLayer}
        return kinds[config.form](base_layer, self, key)

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """The prototype; what is added last is zero at first, but for prefixes."""
        found: dict[Shapes, slice] = {}
        parts: list[torch.Tensor] = []
        for name in self.attentions(config):
            module = self.model.get_submodule(name)
            shapes = self.make_layer(_Bare(module), name, config).shapes(config)
            if shapes not in found:
                start = sum(len(part) for part in parts)
                parts.extend(_prototype(config, shapes))
                found[shapes] = slice(start, sum(len(part) for part in parts))
        self.places = getattr(self, "places", {}) | {adapter: found}
        return {"prototype": nn.Parameter(torch.cat(parts))}

    def place(self, adapter: str, shapes: Shapes) -> slice:
        """Where the prototype for layers of these sizes lies."""
        return self.places[adapter][shapes]

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        if peft_config.form == "prefix":
            super()._prepare_model(peft_config, model)

    @classmethod
    def _get_adapter_state_dict(
        cls, model: nn.Module, config: Any, *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        found = super()._get_adapter_state_dict(model, config, *args, **kwargs)
        return {
            name: pack(top(tensor, config.density) > 0) if ".psel_propetl_scores." in name else tensor
            for name, tensor in found.items()
        }

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        own = model.state_dict()
        return {
            name: unpack_bits(tensor, own[name].shape).float() * 0.01 if tensor.dtype == torch.uint8 else tensor
            for name, tensor in mapped.items()
        }


class _Bare(nn.Module):
    """A module seen from outside, so that a layer made only to be asked for its sizes leaves no mark on it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.__dict__["module"] = module.base_layer if isinstance(module, TunerLayer) else module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["module"], name)


def _prototype(config: Any, shapes: Shapes) -> list[torch.Tensor]:
    """Flat starts of both matrices and, for adapters, of the biases."""
    if config.form == "prefix":
        return [torch.randn(math.prod(shape)) * 0.02 for shape in shapes]
    first = torch.empty(shapes[0])
    nn.init.kaiming_uniform_(first, a=math.sqrt(5))
    biases = shapes[0][0] + shapes[1][0] if config.form == "adapter" else 0
    return [first.flatten(), torch.zeros(math.prod(shapes[1])), torch.zeros(biases)]


def top(scores: torch.Tensor, density: float) -> torch.Tensor:
    """1 at the highest scores, 0 elsewhere; scores that are a mask already give that mask."""
    mask = torch.zeros_like(scores)
    mask[scores.topk(max(round(density * len(scores)), 1)).indices] = 1
    return mask


register_tuner(ProConfig, ProModel)
