"""A base in 4 or 8 bits on the fake device: bitsandbytes' layers, with what their CUDA kernels hold in their place.

Storage as bitsandbytes 0.50 keeps it: NF4 packs two weights to a byte, with a scale of 8 bits for 64 weights and a
float32 scale for 256 of those; LLM.int8 keeps a byte a weight and a float32 scale a row. A product unpacks the matrix
for itself, forward and backward; the 8-bit one also keeps its input for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional

from peftselect.memory.tracing.stand_ins import FAKE_DEVICE
from peftselect.method import Recipe
from peftselect.modeling import quantization_config
from peftselect.shape import ModelShape

_NF4_BLOCK, _SCALE_BLOCK = 64, 256


def quantize(model: Any, recipe: Recipe, shape: ModelShape) -> Any:
    """Replace the linear layers that transformers would, and make ready for training as ``run`` does."""
    from peft import prepare_model_for_kbit_training
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.utils.quantization_config import QuantizationMethod

    config = quantization_config(recipe, shape)
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    kept = quantizer.get_modules_to_not_convert(model, config.llm_int8_skip_modules, model._keep_in_fp32_modules)
    biases = {name: module.bias for name, module in model.named_modules() if getattr(module, "bias", None) is not None}
    with unset_fake_temporarily():  # bitsandbytes' own parameters cannot be fake; they are replaced at once
        replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    _fill(model, biases)
    bits = "4bit" if recipe.quantization == "nf4" else "8bit"
    setattr(model, f"is_loaded_in_{bits}", True)
    model.is_quantized = True
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    model.config.quantization_config = config
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _fill(model: Any, biases: dict[str, Any]) -> None:
    """Packed weights on the device for every bitsandbytes layer, and the product that uses them."""
    import bitsandbytes

    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            _pack(module)
            module.forward = MethodType(_four_bit, module)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            _scale_rows(module)
            module.forward = MethodType(_eight_bit, module)
        else:
            continue
        if module.bias is not None:
            module.bias = biases[name].requires_grad_(False)


@dataclass(frozen=True)
class _PackedState:
    """What peft and peftselect ask of a ``QuantState``."""

    shape: torch.Size

    def as_dict(self, packed: bool = False) -> dict[str, torch.Tensor]:
        """Nothing of the base is saved with an adapter."""
        return {}


def _pack(module: Any) -> None:
    shape = torch.Size((module.out_features, module.in_features))
    kind = module.weight.quant_type
    packed = torch.empty((-(-shape.numel() // 2), 1), dtype=torch.uint8, device=FAKE_DEVICE)
    scales = -(-shape.numel() // _NF4_BLOCK)
    module.weight = torch.nn.Parameter(packed, requires_grad=False)
    module.weight.compress_statistics, module.weight.quant_type = True, kind
    module.weight.quant_state = _PackedState(shape)
    for name, size, dtype in (
        ("absmax", scales, torch.uint8),
        ("absmax_of_absmax", -(-scales // _SCALE_BLOCK), torch.float32),
        ("code", 256, torch.float32),
    ):
        module.register_buffer(f"trace_{name}", torch.empty(size, dtype=dtype, device=FAKE_DEVICE), persistent=False)


def _scale_rows(module: Any) -> None:
    shape = (module.out_features, module.in_features)
    weight = torch.nn.Parameter(torch.empty(shape, dtype=torch.int8, device=FAKE_DEVICE), requires_grad=False)
    module.weight = weight
    module.weight.SCB, module.weight.CB, module.weight.has_fp16_weights = None, None, False
    module.register_buffer("trace_scales", torch.empty(shape[0], device=FAKE_DEVICE), persistent=False)


def _four_bit(self: Any, inputs: torch.Tensor) -> torch.Tensor:
    """``Linear4bit.forward``: in the compute type inside, in the input's type outside."""
    width = inputs.dtype
    computed = inputs.to(self.compute_dtype) if self.compute_dtype is not None else inputs
    bias = None if self.bias is None else self.bias.to(computed.dtype)
    out: torch.Tensor = _FourBitProduct.apply(computed, bias, self.out_features)
    return out.to(width)


def _eight_bit(self: Any, inputs: torch.Tensor) -> torch.Tensor:
    """``Linear8bitLt.forward``."""
    bias = None if self.bias is None else self.bias.to(inputs.dtype)
    out: torch.Tensor = _EightBitProduct.apply(inputs, bias, self.out_features)
    return out


def _unpacked(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.empty((rows, columns), dtype=like.dtype, device=like.device)


class _FourBitProduct(torch.autograd.Function):
    """``MatMul4Bit``: nothing but the packed weight is kept."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, bias: torch.Tensor | None, rows: int) -> torch.Tensor:
        ctx.columns = inputs.shape[-1]
        with torch.autocast(FAKE_DEVICE, enabled=False):
            return functional.linear(inputs, _unpacked(inputs, rows, ctx.columns), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        grad = grads[0]
        return torch.matmul(grad, _unpacked(grad, grad.shape[-1], ctx.columns)), None, None


class _EightBitProduct(torch.autograd.Function):
    """``MatMul8bitLt``: the input is kept; a 16-bit copy, its bytes and a 32-bit product pass."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, bias: torch.Tensor | None, rows: int) -> torch.Tensor:
        ctx.inputs = inputs
        in_bytes = inputs.to(torch.float16).to(torch.int8)
        summed = torch.empty((*inputs.shape[:-1], rows), dtype=torch.int32, device=inputs.device)
        del in_bytes
        out = summed.to(torch.float16)
        return out if inputs.dtype == torch.float16 else out.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        grad = grads[0].to(ctx.inputs.dtype)
        return torch.matmul(grad, _unpacked(grad, grad.shape[-1], ctx.inputs.shape[-1])), None, None
