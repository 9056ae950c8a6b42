"""Scaled dot-product attention as CUDA would run it: flash where it may, memory-efficient elsewhere.

On fake CPU tensors PyTorch would take the CPU's kernel or the mathematical form, which keep other tensors. The choice
here follows PyTorch's own order on compute capability 8.0 and newer (``sdp_utils.cpp``): flash for half precision
without a mask and heads up to 256 wide, else memory-efficient, whose bias is padded to a multiple of 16 columns.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from peftselect.memory.tracing.precision import in_half

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATEN = torch.ops.aten
_FLASH_HEAD_LIMIT = 256
_BIAS_MULTIPLE = 16


def cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Stand in for ``torch.nn.functional.scaled_dot_product_attention`` (tensors: batch, heads, length, head size).

    Autocast lists the whole function: what it takes is cast before a bias is built from a mask and laid over the heads.
    """
    query, key, value, attn_mask = (in_half(tensor) for tensor in (query, key, value, attn_mask))
    half = query.dtype in (torch.bfloat16, torch.float16)
    if attn_mask is None and half and query.shape[-1] <= _FLASH_HEAD_LIMIT:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    bias = None if attn_mask is None else _bias(attn_mask, query, key)
    keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    efficient = _ATEN._scaled_dot_product_efficient_attention
    result: torch.Tensor = efficient(query, key, value, bias, keeps, dropout_p, is_causal, scale=scale)[0]
    return result


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> torch.Tensor:
    width = query.shape[-1]
    padding = -width % 8
    if padding:
        query, key, value = (functional.pad(tensor, (0, padding)) for tensor in (query, key, value))
    factor = scale if scale is not None else 1 / math.sqrt(width)
    out: torch.Tensor = _ATEN._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, False, scale=factor
    )[0]
    return out[..., :width] if padding else out


def _bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A mask as the additive bias that the memory-efficient kernel wants."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    length = mask.shape[-1]
    if length % _BIAS_MULTIPLE:
        mask = functional.pad(mask, (0, -length % _BIAS_MULTIPLE))[..., :length]
    while mask.dim() < 4:
        mask = mask.unsqueeze(0)
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


@contextlib.contextmanager
def attention_as_on_cuda(*, padded: bool) -> Iterator[None]:
    """Put the stand-in in place; ``padded`` says whether batches carry padding (then a mask is built and kept).

    transformers looks at the mask's values to see whether it may be left out, which fake tensors cannot answer.
    """
    import transformers.masking_utils as masking

    attention, skip_causal = functional.scaled_dot_product_attention, masking._ignore_causal_mask_sdpa
    skip_bidirectional = masking._ignore_bidirectional_mask_sdpa

    def skip_causal_mask(padding_mask: Any, query_length: int, kv_length: int, *args: Any, **kwargs: Any) -> bool:
        if padding_mask is not None and padded:
            return False
        return query_length in (1, kv_length)

    def skip_bidirectional_mask(padding_mask: Any, *args: Any, **kwargs: Any) -> bool:
        return padding_mask is None or not padded

    functional.scaled_dot_product_attention = cuda_attention
    masking._ignore_causal_mask_sdpa = skip_causal_mask
    masking._ignore_bidirectional_mask_sdpa = skip_bidirectional_mask
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attention
        masking._ignore_causal_mask_sdpa = skip_causal
        masking._ignore_bidirectional_mask_sdpa = skip_bidirectional
