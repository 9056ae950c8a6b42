"""Cutting channels out of linear layers, and telling the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

#: where configurations keep the width of the feed-forward part
WIDTHS = (
    "intermediate_size", "d_ff", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
)  # fmt: skip


def cut(module: Any, places: torch.Tensor, *, outputs: bool) -> None:
    """Leave a linear layer (or Conv1D) these outputs, or inputs, in place."""
    axis = int(not outputs) ^ int(hasattr(module, "nf"))
    module.weight.data = module.weight.data.index_select(axis, places).contiguous()
    if outputs and module.bias is not None:
        module.bias.data = module.bias.data[places].contiguous()
    for name in ("out_features", "nf") if outputs else ("in_features", "nx"):
        if hasattr(module, name):
            setattr(module, name, len(places))


def set_width(config: Any, old: int, new: int) -> None:
    """Say in a configuration, and in those inside it, that the feed-forward part has another width."""
    for item in (config, *_inside(config)):
        for name in WIDTHS:
            said = getattr(item, name, 0)
            if said == old or (name == "n_inner" and said is None):
                setattr(item, name, new)


def _inside(config: Any) -> Iterator[Any]:
    yield from (getattr(config, name) for name in getattr(config, "sub_configs", {}) if getattr(config, name, None))
