"""Res-Tuning: tuners in parallel to attention, to the feed-forward part, and to the whole block.

Jiang et al. 2023 (arXiv 2310.19859, section 3.2): ``OP(x) + tuner(x)`` for each operation ``OP`` of a block, with a
tuner that is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel, Catch
from peftselect.tuners.registry import register_tuner


@dataclass
class ResidualConfig(BottleneckConfig):
    """Targets are whole blocks, and the linear layers with which attention and feed-forward part end.

    ``begins`` names, by the path of such a layer inside a block, the layer that reads the same sub-layer's input.
    """

    type_name: ClassVar[str] = "PSEL_RESIDUAL"

    width: int = field(default=0, metadata={"help": "width of the model"})
    begins: dict[str, str] = field(default_factory=dict, metadata={"help": "first layer of a sub-layer by its last"})


class ResidualLayer(BottleneckLayer):
    """A block, or the end of a sub-layer, with a tuner that reads what went in."""

    adapter_layer_names = ("psel_residual_down", "psel_residual_up")

    def ends(self, config: Any) -> str:
        """Path of the sub-layer's end that this is; empty for a whole block."""
        found = [path for path in config.begins if self.key == path or self.key.endswith("." + path)]
        return max(found, key=len, default="")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Both matrices with their biases; blocks are as wide as the model."""
        return super().make(adapter, config) if self.ends(config) else self.bottleneck(config.width, config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output and what the tuners make of the input."""
        output = self.base_layer(*args, **kwargs)
        before, self.caught = self.caught, None
        if not self.working:
            return output
        result: torch.Tensor = output[0] if isinstance(output, tuple) else output
        for adapter in self.working:
            source: Any = before if self.ends(self.configs[adapter]) else (args[0] if args else kwargs["hidden_states"])
            result = result + self.change(adapter, source).to(result.dtype)
        return (result, *output[1:]) if isinstance(output, tuple) else result


class ResidualModel(BottleneckModel):
    """The tuner, which listens where sub-layers begin."""

    prefix = "psel_residual_"
    tuner_layer_cls = ResidualLayer

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> Any:
        """Layers inside a block that is wrapped already are known by the names that they had."""
        return BottleneckModel._check_target_module_exists(peft_config, key.replace(".base_layer.", "."))

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """In the block itself, where its parent is a block that is wrapped already."""
        inner = parent.base_layer if isinstance(parent, ResidualLayer) else parent
        super()._replace_module(inner, child_name, new_module, child)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As every tuner does, and join each layer to the place where its sub-layer begins."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        config = self.peft_config[adapter_name]
        modules = dict(model.named_modules())
        for layer in [item for item in modules.values() if isinstance(item, ResidualLayer)]:
            if path := layer.ends(config):
                first = modules[_inside(modules, layer.key.removesuffix(path) + config.begins[path])]
                if not getattr(first, "_psel_begins", False):
                    first.register_forward_pre_hook(Catch(layer))
                    first._psel_begins = True


def _inside(modules: Mapping[str, Any], key: str) -> str:
    """The name that a module has now that blocks around it are wrapped."""
    parts: list[str] = []
    for part in key.split("."):
        parts.append(part)
        if ".".join(parts) not in modules:
            parts[-1:] = ["base_layer", part]
    return ".".join(parts)


register_tuner(ResidualConfig, ResidualModel)
