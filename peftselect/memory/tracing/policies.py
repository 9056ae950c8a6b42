"""What fake tensors cannot know: operations whose result depends on values, answered as an ordinary run would.

A fake tensor has no values, so ``nonzero``, ``item`` or indexing by a mask have no known answer. The policy is the size
that an ordinary training step most likely sees, which for memory is what counts: every element selected, a checked
condition true, a scalar in the middle of its range.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from peftselect.memory.tracing.log import AllocationLog, StorageTracker

_ATEN = torch.ops.aten
#: references to a gradient, and to its storage, where autograd's engine alone holds it and asks for a sum
_ENGINE_ALONE = (4, 2)
#: frames of torch's own between the engine and a dispatch mode
_WRAPPERS = ("_fn", "inner")
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN.index_put.default)


class PolicyTracker(StorageTracker):
    """A storage tracker that also answers value-dependent operations."""

    def __init__(self, log: AllocationLog, device_type: str, wide: int = 0) -> None:
        super().__init__(log, device_type, wide)
        #: how many elements are set in masks that were written element by element, by the storage's serial
        self._set: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what depends on values; hand the rest on."""
        kwargs = kwargs or {}
        if func is _ATEN._local_scalar_dense.default:
            return _scalar(args[0])
        if func is _ATEN._to_copy.default and getattr(args[0], "constant", None) is not None:
            args[0].constant = None  # a literal that moves to the fake device can no longer be looked up on the host
        if func is _ATEN.nonzero.default:
            return self._all_selected(args[0])
        if func is _ATEN.masked_select.default:
            return super().__torch_dispatch__(_ATEN.clone.default, types, (args[0].reshape(-1),), {})
        if func is _ATEN.bincount.default:
            length = kwargs.get("minlength") or (args[2] if len(args) > 2 else 0)
            options = {"dtype": torch.int64, "device": args[0].device}
            return super().__torch_dispatch__(_ATEN.zeros.default, types, ([length],), options)
        if func is _ATEN.add.Tensor and _meets_in_place(*args[:2]):
            func = _ATEN.add_.Tensor
        if func in _INDEXING:
            args = (args[0], self._indices(args[1]), *args[2:])
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func is _ATEN._linalg_svd.default and out[2].device.type == self.device_type:
            out = (out[0], out[1], self._by_rows(out[2]))
        elif func is _ATEN.scatter_.src:
            self._set[self.log.serial(out)] = args[2].numel()
        elif func is _ATEN.eq.Scalar and (count := self._set.get(self.log.serial(args[0]))):
            self._set[self.log.serial(out)] = count
        return out

    def _by_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """cuSOLVER's right singular vectors lie by rows, so that their first rows are a view that keeps all alive."""
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        self.note(made)
        return made

    def _all_selected(self, mask: torch.Tensor) -> torch.Tensor:
        count = self._set.get(self.log.serial(mask), mask.numel())
        chosen = torch.empty((count, mask.dim()), dtype=torch.int64, device=mask.device)
        self.note(chosen)
        return chosen

    def _indices(self, indices: Any) -> list[Any]:
        """Boolean masks among the indices become the positions they select."""
        plain: list[Any] = []
        for index in indices:
            if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
                plain += list(self._all_selected(index).unbind(1))
            else:
                plain.append(index)
        return plain


def _meets_in_place(first: Any, second: Any) -> bool:
    """Whether these are gradients that meet, of which nobody else holds the first.

    The engine then adds in place (``can_accumulate_inplace`` in ``input_buffer.cpp``), but never under a dispatch mode.
    A tied embedding is where it counts: its two gradients are as large as the vocabulary.
    """
    if torch.is_grad_enabled() or not isinstance(second, torch.Tensor):
        return False
    frame = sys._getframe(2)  # who called the tracker
    while frame is not None and frame.f_code.co_name in _WRAPPERS:
        frame = frame.f_back  # type: ignore[assignment]
    storage = first.untyped_storage()
    alone = (first._use_count(), torch._C._storage_Use_Count(storage._cdata)) == _ENGINE_ALONE
    alike = (first.shape, first.dtype) == (second.shape, second.dtype)
    return frame is None and alone and alike and storage.nbytes() == first.numel() * first.element_size()


def _scalar(tensor: torch.Tensor) -> Any:
    constant = getattr(tensor, "constant", None)
    if constant is not None:
        return constant.item()
    if tensor.dtype == torch.bool:
        return False
    return 0.5 if tensor.dtype.is_floating_point else 0
