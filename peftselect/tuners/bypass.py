"""Res-Tuning-Bypass: tuners chained beside the frozen base, which read its blocks and never send a gradient into them.

Jiang et al. 2023 (arXiv 2310.19859, section 3.3): ``z_l = m_l H_l(x_l) + (1 - m_l) V_l(z_{l-1})`` with horizontal and
vertical tuners, ``m_l = sigmoid(a_l)``, ``x_l`` the output of block l, and ``z_0`` the input of the first block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers.activations import ACT2FN

from peftselect.tuners.registry import register_tuner
from peftselect.tuners.side import SideConfig, SideLayer, SideModel

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class BypassConfig(SideConfig):
    """Each tuner is a residual bottleneck: ``x + up(act(down(x)))``."""

    type_name: ClassVar[str] = "PSEL_BYPASS"

    bottleneck: int = field(default=32, metadata={"help": "inner width of a tuner"})
    activation: str = field(default="gelu", metadata={"help": "its activation"})


class BypassLayer(SideLayer):
    """A block of the base with both tuners."""

    adapter_layer_names = tuple(
        f"psel_bypass_{name}" for name in ("share", "across_down", "across_up", "along_down", "along_up")
    )
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_bypass_share",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """Both tuners, which change nothing at first, and an even share."""
        made: dict[str, nn.Module | nn.Parameter] = {"share": nn.Parameter(torch.zeros(1))}
        for kind in ("across", "along"):
            made[f"{kind}_down"] = nn.Linear(config.width, config.bottleneck)
            made[f"{kind}_up"] = up = nn.Linear(config.bottleneck, config.width)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        return made

    def rung(
        self, adapter: str, flow: torch.Tensor | None, before: torch.Tensor, after: torch.Tensor, given: dict[str, Any]
    ) -> torch.Tensor:
        """Mix what comes across from the base with what comes along the bypass."""
        share = torch.sigmoid(self.leaf("share", adapter)).to(after.dtype)
        across = self._tune(adapter, "across", after)
        along = self._tune(adapter, "along", before if flow is None else flow)
        return share * across + (1 - share) * along

    def leave(self, adapter: str, flow: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The head reads the bypass alone."""
        return flow

    def _tune(self, adapter: str, kind: str, states: torch.Tensor) -> torch.Tensor:
        inner = ACT2FN[self.configs[adapter].activation](self.leaf(f"{kind}_down", adapter)(states))
        tuned: torch.Tensor = states + self.leaf(f"{kind}_up", adapter)(inner)
        return tuned


class BypassModel(SideModel):
    """The tuner."""

    prefix = "psel_bypass_"
    tuner_layer_cls = BypassLayer
    mixes_positions = False


register_tuner(BypassConfig, BypassModel)
