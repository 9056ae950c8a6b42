"""Quantisation-aware training: layers compute with rounded weights, and gradients pass straight to the full ones.

Jacob et al. 2017 (arXiv 1712.05877), section 3: between the smallest and the largest weight, with a zero point that is
a whole number. Each output has its own scale. A state dictionary holds the rounded weights.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


def rounded(weight: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
    """``weight`` on the grid of ``2**bits`` levels that spans it, along ``axis`` (that of a layer's inputs)."""
    wide = weight.detach().float()
    top = 2**bits - 1
    low, high = wide.amin(axis, keepdim=True).clamp_max(0), wide.amax(axis, keepdim=True).clamp_min(0)
    scale = ((high - low) / top).clamp_min(1e-12)
    zero = torch.round(-low / scale)
    codes = (torch.round(wide / scale) + zero).clamp_(0, top)
    on_grid: torch.Tensor = (codes - zero) * scale
    return on_grid.to(weight.dtype)


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is that of doing nothing."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
        return rounded(weight, bits, axis)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0], None, None


class _Rounded:
    """What a linear layer becomes: its own weight is trained, the rounded one is used and saved."""

    bits: int
    axis: int
    weight: torch.Tensor

    def used(self) -> torch.Tensor:
        """The rounded weight, differentiable."""
        used: torch.Tensor = _StraightThrough.apply(self.weight, self.bits, self.axis)  # type: ignore[no-untyped-call]
        return used

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        destination[prefix + "weight"] = rounded(self.weight, self.bits, self.axis)


class RoundedLinear(_Rounded, nn.Linear):
    """A linear layer with rounded weights."""

    axis = 1

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The product with the rounded weight."""
        return functional.linear(states, self.used(), self.bias)


class RoundedConv1D(_Rounded, Conv1D):  # type: ignore[misc]
    """GPT-2's linear layer with rounded weights, whose matrix is turned round."""

    axis = 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The product with the rounded weight."""
        return functional.linear(states, self.used().T, self.bias)


def train_rounded(model: Any, pattern: str, bits: int) -> Any:
    """Have the linear layers of ``model`` whose whole names match ``pattern`` compute in ``bits``; in place."""
    for name, module in model.named_modules():
        if re.fullmatch(pattern, name):
            module.__class__ = RoundedConv1D if isinstance(module, Conv1D) else RoundedLinear
            module.bits = bits
    return model
