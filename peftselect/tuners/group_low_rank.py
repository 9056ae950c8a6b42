"""QA-LoRA: a low-rank update that adds the same to every weight of a group, so that zero points can take it in.

Xu et al. 2023 (arXiv 2309.14717). A group of ``block`` inputs of a row has one scale and one zero point; the update
reads the sum of each group, and what it adds to a weight depends on the group alone: ``scale * (code - zero) + d`` is
``scale * (code - (zero - d / scale))``, and the codes stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner
from peftselect.tuners.low_rank import LowRankLayer
from peftselect.tuners.packed_linear import IntegerLinear, PackedLinear
from peftselect.tuners.packed_low_rank import PackedConfig, PackedLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class GroupConfig(PackedConfig):
    """``block`` is the size of a group, in inputs of a row."""

    type_name: ClassVar[str] = "PSEL_GROUPS"

    block: int = field(default=32, metadata={"help": "inputs of a row that share scale, zero point and update"})


class GroupLowRankLayer(LowRankLayer, PackedLayer):
    """A layer of group-wise integers with a low-rank update of its groups."""

    adapter_layer_names: tuple[str, ...] = ("psel_groups_down", "psel_groups_up")
    parameter_names: ClassVar[tuple[str, ...]] = adapter_layer_names
    base_layer: IntegerLinear

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """Factors of (rank, groups) and (out, rank); the update is zero at first."""
        base = self.packed(config)
        down = torch.empty(config.r, base.in_features // base.block)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return {"down": nn.Parameter(down), "up": nn.Parameter(torch.zeros(base.out_features, config.r))}

    def pack(self, matrix: torch.Tensor, config: Any) -> PackedLinear:
        """Integers by rounding to the nearest."""
        if matrix.shape[1] % config.block:
            raise ValueError(f"groups of {config.block} do not fill the {matrix.shape[1]} inputs of {self.key}")
        return IntegerLinear(self.base_layer, config.bits, config.block, matrix)

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter's own."""
        return self.leaf("down", adapter), self.leaf("up", adapter)

    def entering(self, states: torch.Tensor, adapter: str) -> torch.Tensor:
        """The sum of each group of the input (..., groups), some of them dropped in training (algorithm 1)."""
        config = self.configs[adapter]
        pooled = states.view(*states.shape[:-1], -1, config.block).sum(-1)
        return functional.dropout(pooled, config.dropout, self.training)

    def _add(self, adapter: str, sign: float) -> None:
        """Move the zero points."""
        base, (down, up) = self.base_layer, self.factors(adapter)
        added = (up @ down).detach().float() * (sign * self.configs[adapter].scale)
        base.zeros = base.zeros.float() - added / base.scales.float()

    def unmerge(self) -> None:
        """Take the updates off again: whole zero points are left."""
        super().unmerge()
        self.base_layer.zeros = self.base_layer.zeros.round().to(torch.uint8)


class GroupModel(Tuner):
    """The tuner."""

    prefix = "psel_groups_"
    tuner_layer_cls = GroupLowRankLayer


register_tuner(GroupConfig, GroupModel)
