"""BI-Adapter: parallel adapters whose weights are one bit each, in training already.

Jie et al. 2023 (arXiv 2307.16867): weights are standardised and take one of the two levels that code a normal
distribution best; gradients pass straight through. A checkpoint holds the bits, a mean and a deviation for each matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import features
from peftselect.tuners.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the level of one bit that codes a standard normal number with the least squared error (Max 1960)
LEVEL = math.sqrt(2 / math.pi)
_PLACES = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


@dataclass
class BinaryBottleneckConfig(BottleneckConfig):
    """As for dense adapters."""

    type_name: ClassVar[str] = "PSEL_BINARY"


class BinaryLinear(nn.Linear):
    """A linear layer without bias that works with the one-bit code of its weight."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=std)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``states`` (..., inputs) times the coded matrix."""
        mean, deviation = self.weight.mean(), self.weight.std(correction=0)
        coded = mean + deviation * LEVEL * torch.where(self.weight > mean, 1.0, -1.0)
        return nn.functional.linear(states, self.weight + (coded - self.weight).detach())


class BinaryBottleneckLayer(BottleneckLayer):
    """A linear layer and its one-bit adapters."""

    adapter_layer_names = ("psel_binary_down", "psel_binary_up")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Both matrices; the second is narrow at first, for a code of zeros has no signs."""
        width, inner = features(self.get_base_layer())[1], config.bottleneck
        return {"down": BinaryLinear(width, inner, width**-0.5), "up": BinaryLinear(inner, width, 1e-4)}


class BinaryBottleneckModel(BottleneckModel):
    """The tuner, which packs eight weights into a byte."""

    prefix = "psel_binary_"
    tuner_layer_cls = BinaryBottleneckLayer

    @classmethod
    def _get_adapter_state_dict(cls, model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        packed: dict[str, torch.Tensor] = {}
        for name, tensor in super()._get_adapter_state_dict(model, *args, **kwargs).items():
            if cls.prefix in name:
                key = name.removesuffix("weight")
                packed[key + "bits"] = pack(tensor > tensor.mean())
                packed[key + "code"] = torch.stack([tensor.mean(), tensor.std(correction=0)])
            else:
                packed[name] = tensor
        return packed

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        plain: dict[str, torch.Tensor] = {}
        sizes = {
            cls._remove_adapter_name_from_key(name, adapter_name): item.shape
            for name, item in model.state_dict().items()
            if cls.prefix in name and f".{adapter_name}." in name
        }
        for name, tensor in state_dict.items():
            if name.endswith(".bits"):
                weight = name.removesuffix("bits") + "weight"
                size = sizes[weight] if weight in sizes else sizes[weight.removeprefix("base_model.model.")]
                plain[weight] = unpack(tensor, state_dict[name.removesuffix("bits") + "code"], size)
            elif not name.endswith(".code"):
                plain[name] = tensor
        remapped: dict[str, torch.Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, plain
        )
        return remapped


def pack(signs: torch.Tensor) -> torch.Tensor:
    """Booleans of any shape, eight to a byte."""
    flat = nn.functional.pad(signs.flatten().to(torch.uint8), (0, -signs.numel() % 8))
    return (flat.view(-1, 8) * _PLACES.to(flat.device)).sum(dim=1).to(torch.uint8)


def unpack_bits(packed: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """The booleans that were packed."""
    return (packed.unsqueeze(1) & _PLACES.to(packed.device)).flatten()[: math.prod(size)].view(size) > 0


def unpack(packed: torch.Tensor, code: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """A matrix with these signs whose mean and deviation are those of ``code``: its own code is the one saved."""
    signs = unpack_bits(packed, size)
    share = signs.float().mean().clamp(1e-6, 1 - 1e-6)
    step = code[1] / torch.sqrt(share * (1 - share))
    return code[0] + step * (signs.float() - share)


register_tuner(BinaryBottleneckConfig, BinaryBottleneckModel)
