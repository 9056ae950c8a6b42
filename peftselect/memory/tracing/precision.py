"""Automatic mixed precision on the fake device: which operations take 16-bit copies and which float32, as on CUDA.

torch has autocast kernels for real devices alone. The lists are CUDA's (``aten/src/ATen/autocast_mode.h``), the parts
that transformers' models use; 16-bit copies of trained float32 weights are made once a forward pass, as there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from peftselect.memory.tracing.stand_ins import FAKE_DEVICE, replaced

_KEY = "AutocastPrivateUse1"
_HALF = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "conv1d", "conv2d", "conv_transpose1d",
         "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention")  # fmt: skip
_SINGLE = ("layer_norm", "group_norm", "native_layer_norm", "exp", "log", "rsqrt", "pow.Tensor_Scalar",
           "pow.Tensor_Tensor", "softplus", "nll_loss", "nll_loss_nd", "mse_loss", "cross_entropy_loss",
           "ctc_loss.Tensor", "cosine_similarity", "cumsum", "prod", "sum", "sum.dim_IntList", "softmax.int",
           "log_softmax.int", "binary_cross_entropy_with_logits", "l1_loss", "smooth_l1_loss")  # fmt: skip
_WIDEST = ("cat", "stack", "addcdiv", "addcmul", "index_put", "scatter_add")

_libraries: list[torch.library.Library] = []
_copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}


@contextlib.contextmanager
def mixed_precision(dtype: torch.dtype | None) -> Iterator[None]:
    """``torch.autocast`` on the fake device; nothing where ``dtype`` is None."""
    if dtype is None:
        yield
        return
    _register()
    plain = torch.is_autocast_enabled
    asked = {"is_autocast_enabled": lambda device=FAKE_DEVICE: plain(device)}  # without a device torch means CUDA
    with replaced(torch, **asked), torch.autocast(FAKE_DEVICE, dtype=dtype):
        yield


@contextlib.contextmanager
def copies_forgotten() -> Iterator[None]:
    """Copies of weights go when the outermost autocast ends, that of a block which checkpointing runs again too."""
    plain = torch.clear_autocast_cache

    def clear() -> None:
        plain()
        _copies.clear()

    with replaced(torch, clear_autocast_cache=clear):
        yield


def in_half(item: Any) -> Any:
    """What an operation on the 16-bit list makes of an argument; outside of autocast, and without floats, nothing."""
    return _cast(item, torch.get_autocast_dtype(FAKE_DEVICE)) if torch.is_autocast_enabled(FAKE_DEVICE) else item


def _register() -> None:
    """Once a process: kernels for the lists, everything else passes through."""
    if _libraries:
        return
    rest, aten = torch.library.Library("_", "IMPL", _KEY), torch.library.Library("aten", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel)
    for names, cast in ((_HALF, _to_half), (_SINGLE, _to_single), (_WIDEST, _to_widest)):
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            aten.impl(name, _kernel(operation, cast), _KEY)
    _libraries.extend((rest, aten))


def _kernel(operation: Any, cast: Callable[[list[torch.Tensor]], torch.dtype | None]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        key = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))
        with torch._C._ExcludeDispatchKeyGuard(key):
            floats = [item for item in torch.utils._pytree.tree_leaves((args, kwargs)) if _is_float(item)]
            dtype = cast(floats)
            if dtype is None:
                return operation(*args, **kwargs)
            wanted = torch.utils._pytree.tree_map(lambda item: _cast(item, dtype), (args, kwargs))
            return operation(*wanted[0], **wanted[1])

    return run


def _is_float(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.is_floating_point() and item.device.type == FAKE_DEVICE


def _to_half(floats: list[torch.Tensor]) -> torch.dtype | None:
    return torch.get_autocast_dtype(FAKE_DEVICE)


def _to_single(floats: list[torch.Tensor]) -> torch.dtype | None:
    return torch.float32


def _to_widest(floats: list[torch.Tensor]) -> torch.dtype | None:
    return torch.float32 if len({item.dtype for item in floats}) > 1 else None


def _cast(item: Any, dtype: torch.dtype) -> Any:
    if not _is_float(item) or item.dtype == dtype or item.dtype == torch.float64:
        return item
    trained = item.dtype == torch.float32 and item.requires_grad and item.is_leaf and item._base is None
    if not trained or not torch.is_autocast_cache_enabled():
        return item.to(dtype)
    if id(item) not in _copies:
        _copies[id(item)] = (item, item.to(dtype))
    return _copies[id(item)][1]
