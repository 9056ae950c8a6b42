"""PEQA: the weights are integers for good, and their scales are trained.

Kim et al. 2023 (arXiv 2305.14152), equations 1 and 2. An adapter is one set of scales: another task is another set over
the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner, TunerConfig
from peftselect.tuners.packed_linear import IntegerLinear, PackedLinear, compute_type
from peftselect.tuners.packed_low_rank import PackedLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class ScalesConfig(TunerConfig):
    """``block`` is the size of a group of inputs that share a scale; 0: one scale for each output."""

    type_name: ClassVar[str] = "PSEL_SCALES"

    bits: int = field(default=4, metadata={"help": "bits of a weight"})
    block: int = field(default=0, metadata={"help": "inputs of a row that share a scale; 0: all"})


class ScalesLayer(PackedLayer):
    """A layer of integers whose scales an adapter replaces."""

    adapter_layer_names: tuple[str, ...] = ("psel_scales_scale",)
    parameter_names: ClassVar[tuple[str, ...]] = adapter_layer_names

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """Scales of (out, groups), as rounding chose them."""
        base = self.packed(config)
        assert isinstance(base, IntegerLinear)
        return {"scale": nn.Parameter(base.scales.float().clone())}

    def pack(self, matrix: torch.Tensor, config: Any) -> PackedLinear:
        """Integers by rounding to the nearest."""
        if config.block and matrix.shape[1] % config.block:
            raise ValueError(f"groups of {config.block} do not fill the {matrix.shape[1]} inputs of {self.key}")
        return IntegerLinear(self.base_layer, config.bits, config.block, matrix)

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The product with the integers under the scales of the working adapter, or under those of rounding."""
        base, working = self.base_layer, self.working
        if working and isinstance(base, IntegerLinear):
            scale = self.leaf("scale", working[0])
            result: torch.Tensor = _ScaledProduct.apply(compute_type(states), scale, base)  # type: ignore[no-untyped-call]
        else:
            result = base(states, *args, **kwargs)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put a floating-point layer in the place of the integers: trained scales times steps."""
        names = adapter_names or self.working
        if not names or self.merged_adapters:
            return
        base = self.base_layer
        assert isinstance(base, IntegerLinear)
        matrix = base.steps(torch.float32) * self.leaf("scale", names[0]).detach().unsqueeze(2)
        self._unmerged = [base]  # in a list: no part of the layer meanwhile
        self.base_layer = base.plain(matrix.view(base.out_features, base.in_features))
        self.merged_adapters.append(names[0])

    def unmerge(self) -> None:
        """Take the integers back."""
        if self.merged_adapters:
            self.base_layer = self._unmerged.pop()
            self.merged_adapters.clear()


class ScalesModel(Tuner):
    """The tuner."""

    prefix = "psel_scales_"
    tuner_layer_cls = ScalesLayer


class _ScaledProduct(torch.autograd.Function):
    """A product with ``scale * steps``, of which input and scales are kept; the steps are unpacked again."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, scale: torch.Tensor, layer: IntegerLinear) -> torch.Tensor:
        ctx.save_for_backward(states, scale)
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(states.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return functional.linear(states, _scaled(layer, scale, states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (states, scale), layer, grad = ctx.saved_tensors, ctx.layer, grads[0]
        to_states = grad @ _scaled(layer, scale, grad.dtype) if ctx.needs_input_grad[0] else None
        of_matrix = grad.flatten(0, -2).T @ states.flatten(0, -2)
        to_scale = (layer.grouped(of_matrix) * layer.steps(grad.dtype)).sum(2, dtype=scale.dtype)
        return to_states, to_scale, None


def _scaled(layer: IntegerLinear, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    matrix = layer.steps(dtype) * scale.to(dtype).unsqueeze(2)
    return matrix.view(layer.out_features, layer.in_features)


register_tuner(ScalesConfig, ScalesModel)
