"""Poly: several low-rank updates (skills) a layer, of which each task learns its own mixture.

Ponti et al. 2023 (arXiv 2202.13914). peft's ``PolyConfig`` wants the number of a task with every call; here an adapter
is of one task, so that it is used like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig, features
from peftselect.tuners.low_rank import LowRankLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

#: keeps the sum of the shares from zero
_EPSILON = 1e-12


@dataclass
class SkillsConfig(TunerConfig):
    """Skills of rank ``r`` in each layer; ``scale`` is a factor on what they add."""

    type_name: ClassVar[str] = "PSEL_SKILLS"

    skills: int = field(default=4, metadata={"help": "low-rank updates in each layer"})
    r: int = field(default=8, metadata={"help": "rank of each"})
    scale: float = field(default=1.0, metadata={"help": "factor on the update"})


class SkillsLayer(LowRankLayer):
    """A linear layer with a mixture of low-rank updates beside it."""

    adapter_layer_names: tuple[str, ...] = ("psel_skills_down", "psel_skills_up", "psel_skills_router")
    parameter_names: ClassVar[tuple[str, ...]] = adapter_layer_names

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """Skills of (skills, rank, in) and (skills, out, rank), and a logit for each; the update is zero at first."""
        read, width = features(self.get_base_layer())
        down = torch.empty(config.skills, config.r, read)
        for skill in down:
            nn.init.kaiming_uniform_(skill, a=math.sqrt(5))
        return {
            "down": nn.Parameter(down),
            "up": nn.Parameter(torch.zeros(config.skills, width, config.r)),
            "router": nn.Parameter(torch.empty(config.skills).uniform_(-1e-3, 1e-3)),
        }

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Both factors as the task mixes them (Ponti et al., equation 3: a share of each, summing to one)."""
        share = torch.sigmoid(self.leaf("router", adapter))
        share = share / (share.sum() + _EPSILON)
        down = torch.einsum("s,sri->ri", share, self.leaf("down", adapter))
        return down, torch.einsum("s,sor->or", share, self.leaf("up", adapter))


class SkillsModel(Tuner):
    """The tuner."""

    prefix = "psel_skills_"
    tuner_layer_cls = SkillsLayer


register_tuner(SkillsConfig, SkillsModel)
