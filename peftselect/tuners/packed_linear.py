"""Frozen linear layers that hold their weights in few bits and unpack them for each product.

``weight`` is the packed tensor (int8, flat); ``quant_state`` on it has the matrix's shape, from which parameters are
counted in full. Autograd keeps nothing of the unpacked matrix: the backward pass unpacks it again.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.packing import nearest, normal_levels, pack, unpack

#: scales of NormalFloat blocks that share one float32 scale among their 8-bit codes
SCALE_BLOCK = 256


class PackedLinear(nn.Module):
    """A linear layer with packed weights; subclasses pack and unpack. Made from a linear layer or GPT-2's Conv1D."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Module, bits: int, block: int) -> None:
        super().__init__()
        #: whether the layer it was made from holds its weight turned round
        self.conv1d = hasattr(linear, "nf")
        weight: torch.Tensor = linear.weight.detach()  # type: ignore[operator]
        #: width of the floating-point weight
        self.dtype = weight.dtype
        sizes = weight.shape[::-1] if self.conv1d else weight.shape
        self.out_features, self.in_features = int(sizes[0]), int(sizes[1])
        self.bits, self.block = bits, block
        # set past `register_parameter`, by which peft's low_cpu_mem_usage takes tensors off the device
        self._parameters["weight"] = None
        self._parameters["bias"] = linear.bias  # type: ignore[assignment]

    def store(self, matrix: torch.Tensor) -> None:
        """Pack ``matrix`` (out, in; float32)."""
        packed: Any = nn.Parameter(pack(self.encode(matrix).flatten(), self.bits), requires_grad=False)
        packed.quant_state = SimpleNamespace(shape=torch.Size((self.out_features, self.in_features)))
        self._parameters["weight"] = packed

    def encode(self, matrix: torch.Tensor) -> torch.Tensor:
        """Codes (uint8) of a matrix (out, in; float32), whose scales are kept in buffers."""
        raise NotImplementedError

    def codes(self) -> torch.Tensor:
        """The codes (uint8, flat)."""
        return unpack(self.weight, self.bits, self.out_features * self.in_features)

    def matrix(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The matrix (out, in) that the codes stand for."""
        raise NotImplementedError

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``states`` (..., in) times the matrix, and the bias; in the type of the input, or of autocast."""
        product: torch.Tensor = _Product.apply(compute_type(states), self)  # type: ignore[no-untyped-call]
        return product

    def plain(self, matrix: torch.Tensor | None = None) -> nn.Module:
        """A layer of the kind it was made from, with ``matrix`` (its own where none is given) in floating point."""
        weight = (self.matrix() if matrix is None else matrix).detach().to(self.dtype)
        if self.conv1d:
            from transformers.pytorch_utils import Conv1D

            made: nn.Module = Conv1D(self.out_features, self.in_features)
            weight = weight.T.contiguous()
        else:
            made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        made.weight = nn.Parameter(weight, requires_grad=False)
        made._parameters["bias"] = self.bias  # type: ignore[assignment]
        return made


class NormalLinear(PackedLinear):
    """Weights as NormalFloat codes: blocks of ``block`` (row after row) share a scale, which has 8 bits itself."""

    levels: torch.Tensor
    scales: torch.Tensor
    scale_of_scales: torch.Tensor

    def __init__(self, linear: nn.Module, bits: int, block: int, matrix: torch.Tensor) -> None:
        super().__init__(linear, bits, block)
        self.register_buffer("levels", normal_levels(bits).to(matrix.device), persistent=False)
        self.store(matrix)

    def encode(self, matrix: torch.Tensor) -> torch.Tensor:
        """The nearest levels under scales that are rounded first."""
        blocks = functional.pad(matrix.flatten(), (0, -matrix.numel() % self.block)).view(-1, self.block)
        largest = blocks.abs().amax(1)
        grouped = functional.pad(largest, (0, -len(largest) % SCALE_BLOCK)).view(-1, SCALE_BLOCK)
        outer = grouped.amax(1)
        # rounded up, so that no weight lies outside the levels
        codes = torch.ceil(grouped / outer.clamp_min(1e-12).unsqueeze(1) * 255).clamp(1, 255)
        self.register_buffer("scales", codes.to(torch.uint8).flatten()[: len(largest)].clone(), persistent=False)
        self.register_buffer("scale_of_scales", outer, persistent=False)
        found = nearest(blocks / self._scales(matrix.dtype).clamp_min(1e-12).unsqueeze(1), self.levels)
        return found.flatten()[: matrix.numel()]

    def _scales(self, dtype: torch.dtype) -> torch.Tensor:
        outer = self.scale_of_scales.repeat_interleave(SCALE_BLOCK)[: len(self.scales)]
        return (self.scales.float() * outer / 255).to(dtype)

    def matrix(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Levels times scales."""
        flat = functional.embedding(self.codes().int(), self.levels.to(dtype).unsqueeze(1)).flatten()
        number = len(flat)
        blocks = functional.pad(flat, (0, -number % self.block)).view(-1, self.block)
        blocks = blocks * self._scales(dtype).unsqueeze(1)
        return blocks.flatten()[:number].view(self.out_features, self.in_features)


class IntegerLinear(PackedLinear):
    """Weights as ``scale * (code - zero)``, with both for each ``block`` inputs of each output (0: a whole row).

    ``zeros`` are bytes until something is merged into them; then float32.
    """

    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, linear: nn.Module, bits: int, block: int, matrix: torch.Tensor) -> None:
        super().__init__(linear, bits, block or matrix.shape[1])
        self.store(matrix)

    def encode(self, matrix: torch.Tensor) -> torch.Tensor:
        """Round to the nearest, between the smallest and the largest weight of a group (zero among them)."""
        groups = self.grouped(matrix)
        top = 2**self.bits - 1
        low, high = groups.amin(2).clamp_max(0), groups.amax(2).clamp_min(0)
        scales = ((high - low) / top).clamp_min(1e-8).to(self.dtype)
        wide = scales.to(matrix.dtype)
        zeros = torch.round(-low / wide).clamp(0, top)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("zeros", zeros.to(torch.uint8), persistent=False)
        codes = torch.round(groups / wide.unsqueeze(2)) + zeros.unsqueeze(2)
        return codes.clamp(0, top).to(torch.uint8)

    def grouped(self, matrix: torch.Tensor) -> torch.Tensor:
        """A matrix (out, in) as (out, groups, block)."""
        return matrix.view(self.out_features, -1, self.block)

    def steps(self, dtype: torch.dtype) -> torch.Tensor:
        """``code - zero`` as (out, groups, block)."""
        zeros = self.zeros.to(torch.float32 if self.zeros.is_floating_point() else dtype)
        return (self.grouped(self.codes()).to(zeros.dtype) - zeros.unsqueeze(2)).to(dtype)

    def matrix(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Scales times steps."""
        return (self.steps(dtype) * self.scales.to(dtype).unsqueeze(2)).view(self.out_features, self.in_features)


class _Product(torch.autograd.Function):
    """A product with a frozen packed matrix, of which nothing is kept but the layer."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, layer: PackedLinear) -> torch.Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(states.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return functional.linear(states, layer.matrix(states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0] @ ctx.layer.matrix(grads[0].dtype), None


def compute_type(states: torch.Tensor) -> torch.Tensor:
    """``states`` in the type that a linear layer computes in: autocast's, or their own."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


def float_matrix(linear: nn.Module) -> torch.Tensor:
    """The weight of a linear layer or Conv1D as (out, in) in float32. ValueError where it is quantised already."""
    weight: torch.Tensor = linear.weight.detach()  # type: ignore[operator]
    if not weight.is_floating_point():
        raise ValueError("the base is quantised already: this method packs the weights itself")
    return (weight.T if hasattr(linear, "nf") else weight).float()
