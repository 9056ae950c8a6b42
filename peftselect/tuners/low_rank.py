"""A low-rank update beside a linear layer, whatever its two factors are made from."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from peftselect.tuners.base import TunerLayer, like


class LowRankLayer(TunerLayer):
    """A linear layer with ``scale * up @ down`` beside it; subclasses say what the factors are."""

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of an adapter: (rank, in) and (out, rank)."""
        raise NotImplementedError

    def entering(self, states: torch.Tensor, adapter: str) -> torch.Tensor:
        """What the first factor reads; the layer's input, unless a subclass makes something of it."""
        return states

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output and what the updates add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        for adapter in self.working if not self.merged else ():
            down, up = self.factors(adapter)
            added = functional.linear(functional.linear(self.entering(like(states, down), adapter), down), up)
            result = result + (added * self.configs[adapter].scale).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates to the weight."""
        for adapter in adapter_names or self.working:
            self._add(adapter, 1.0)
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Take them off again."""
        while self.merged_adapters:
            self._add(self.merged_adapters.pop(), -1.0)

    def _add(self, adapter: str, sign: float) -> None:
        base = self.get_base_layer()
        if not base.weight.is_floating_point():
            raise ValueError("an update cannot be merged into a quantised weight")
        down, up = self.factors(adapter)
        delta = (up @ down * (sign * self.configs[adapter].scale)).detach().to(base.weight.dtype)
        base.weight.data += delta.T if hasattr(base, "nf") else delta
