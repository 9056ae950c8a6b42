"""Side blocks that start as the base's blocks with the least important channels left out.

Sung et al. 2022 (arXiv 2206.06522, section 3.3) prune a matrix by its rows and the next one's columns alike. Importance
is the sum of magnitudes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

_ATTENTION = ("query", "key", "value", "output")


@torch.no_grad()
def prune_into(leaves: Mapping[str, Any], block: nn.Module, paths: Mapping[str, str], config: Any) -> None:
    """Copy what is kept of the base's matrices into the leaves; parts that a block lacks stay as they are.

    Kept are the same ``config.side`` channels of the stream everywhere in a block, which the projection ``down`` begins
    by choosing, and of each head, and of the feed-forward part, those of the largest magnitudes.
    """
    weights = {role: weight for role, path in paths.items() if (weight := _weight(block, path)) is not None}
    if not weights:
        return
    stream = sum(weight.abs().sum(1 if role.endswith(("out", "output")) else 0) for role, weight in weights.items())
    kept = _largest(stream, config.side)
    for name in ("down", "first"):
        if name in leaves:
            leaves[name].weight.zero_()
            leaves[name].weight[torch.arange(config.side, device=kept.device), kept] = 1.0
            leaves[name].bias.zero_()
    for before in ("", "cross_"):
        names = [before + name for name in _ATTENTION]
        if all(name in weights and name in leaves for name in names):
            _prune_attention([leaves[name] for name in names], [weights[name] for name in names], kept, config)
    inner = [name for name in ("ffn_gate", "ffn_in") if name in leaves]
    if all(name in weights for name in (*inner, "ffn_out")):
        importance = sum(weights[name].abs().sum(1) for name in inner) + weights["ffn_out"].abs().sum(0)
        rows = _largest(importance, config.inner)
        for name in inner:
            leaves[name].weight.copy_(weights[name][rows][:, kept])
        leaves["ffn_out"].weight.copy_(weights["ffn_out"][kept][:, rows])


def _prune_attention(leaves: list[Any], weights: list[torch.Tensor], kept: torch.Tensor, config: Any) -> None:
    """Queries and keys of a head keep the same of its rows, values and the output projection another choice alike."""
    query, key, value, output = weights
    size = len(key) // config.kv_heads
    groups = config.heads // config.kv_heads
    for ours, theirs, of_queries in (((0, 1), (query, key), query), ((3, 2), (output.T, value), output.T)):
        importance = theirs[1].abs().sum(1).view(config.kv_heads, size)
        importance = importance + of_queries.abs().sum(1).view(config.kv_heads, groups, size).sum(1)
        chosen = torch.stack([_largest(row, config.head_dim) for row in importance])  # (key/value heads, head size)
        first = torch.arange(config.kv_heads, device=chosen.device)[:, None] * size
        of_keys = (chosen + first).flatten()
        heads = torch.arange(config.heads, device=chosen.device)
        spread = (chosen[heads // groups] + heads[:, None] * size).flatten()
        wide = of_queries[spread][:, kept]
        leaves[ours[0]].weight.copy_(wide if ours[0] == 0 else wide.T)
        leaves[ours[1]].weight.copy_(theirs[1][of_keys][:, kept])


def _largest(importance: Any, number: int) -> torch.Tensor:
    return torch.topk(importance, number).indices.sort().values


def _weight(block: nn.Module, path: str) -> torch.Tensor | None:
    """The float32 weight (out, in) of the layer in the block whose name ends so (BERT's ends begin elsewhere, too)."""
    found = [
        (name, module)
        for name, module in block.named_modules()
        if (name == path or name.endswith("." + path)) and hasattr(module, "weight")
    ]
    if not found:
        return None
    module = min(found, key=lambda item: len(item[0]))[1]
    packed = getattr(module.weight, "quant_state", None) is not None or hasattr(module.weight, "SCB")
    weight: torch.Tensor = dequantize_module_weight(module) if packed else module.weight
    weight = weight.detach().float()
    return weight.T if hasattr(module, "nf") else weight
