"""Embedding prompts: trained vectors before the input of every block of an encoder, taken off behind it.

As in the study of speech emotion by Feng and Narayanan 2023 (arXiv 2306.05350).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class BlockPromptConfig(TunerConfig):
    """Targets are blocks of an encoder, which read (batch, positions, width) first."""

    type_name: ClassVar[str] = "PSEL_BLOCKPROMPT"

    num_virtual_tokens: int = field(default=5, metadata={"help": "vectors before the input of each block"})
    width: int = field(default=0, metadata={"help": "width of the model"})


class BlockPromptLayer(TunerLayer):
    """A block with vectors before its input."""

    adapter_layer_names = ("psel_blockprompt_vectors",)
    parameter_names = ("psel_blockprompt_vectors",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """(tokens, width)."""
        return {"vectors": nn.Parameter(torch.randn(config.num_virtual_tokens, config.width) * 0.02)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's output for the positions that it was given."""
        prompts = [self.leaf("vectors", adapter) for adapter in self.working]
        if not prompts:
            return self.base_layer(*args, **kwargs)
        names = list(inspect.signature(self.base_layer.forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        states = given[names[0]]
        rows = [prompt.to(states.dtype).expand(len(states), -1, -1) for prompt in prompts]
        added = sum(row.shape[1] for row in rows)
        given[names[0]] = torch.cat([*rows, states], dim=1)
        if given.get("attention_mask") is not None:
            given["attention_mask"] = _longer(given["attention_mask"], added)
        output = self.base_layer(**given)
        if isinstance(output, tuple):
            return (output[0][:, added:], *output[1:])
        return output[:, added:]


def _longer(mask: torch.Tensor, added: int) -> torch.Tensor:
    """A mask of (batch, positions) or (batch, 1, queries, positions) in which the added ones are seen by all."""
    seen = {torch.bool: True}.get(mask.dtype, 0 if mask.dim() == 4 else 1)
    queries = added if mask.dim() == 4 and mask.shape[-2] > 1 else 0
    return functional.pad(mask, (added, 0, queries, 0) if mask.dim() == 4 else (added, 0), value=seen)


class BlockPromptModel(Tuner):
    """The tuner."""

    prefix = "psel_blockprompt_"
    tuner_layer_cls = BlockPromptLayer


register_tuner(BlockPromptConfig, BlockPromptModel)
