"""How large the file would be that saves what was trained: a safetensors file by names, types and shapes.

The format: eight bytes with the header's length, the header as JSON padded with spaces to a multiple of eight, and the
data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.complex64: "C64",
}  # fmt: skip


def saved_bytes(model: Any) -> int:
    """Bytes of the file that ``save_pretrained`` would write: the adapter's, or the whole model's.

    Tied weights of a whole model are written once; tensors that layers of an adapter share are written for each.
    """
    if hasattr(model, "peft_config"):
        return file_bytes(_adapter_tensors(model))
    once = {id(tensor.untyped_storage()): (name, tensor) for name, tensor in reversed(model.state_dict().items())}
    return file_bytes(dict(once.values()))


def file_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of a safetensors file that holds these tensors with transformers' and peft's metadata."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    # safetensors puts the widest types first, then goes by name
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + start


def _adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = {}
    for adapter in model.peft_config:
        found |= get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers="auto")
    return found
