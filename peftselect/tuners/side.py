"""Networks beside the blocks of a frozen base, which read what the blocks give out and never send a gradient into them.

A layer stands around each block; what flows from one to the next in the side network is kept on the tuner, by adapter
and stack. The last block of the stack that the head reads gives the side network's result.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, like

#: attributes by which models leave out blocks by chance while they train
_CHANCES = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")


@dataclass
class SideConfig(TunerConfig):
    """Targets are the blocks of the base."""

    width: int = field(default=0, metadata={"help": "width of the base"})
    blocks: dict[str, int] = field(default_factory=dict, metadata={"help": "number of blocks by stack"})


class SideLayer(TunerLayer):
    """A block of the base with a rung of the side network beside it."""

    other_param_names = ("configs", "names")

    def __init__(self, base_layer: nn.Module, tuner: Tuner, key: str) -> None:
        super().__init__(base_layer, tuner, key)
        self.names = list(inspect.signature(base_layer.forward).parameters)
        self.index = int(re.findall(r"\.(\d+)$", key)[0])

    def stack(self, config: Any) -> str:
        """Which stack the block belongs to."""
        if len(config.blocks) == 1:
            return str(next(iter(config.blocks)))
        return "encoder" if re.search(r"(?:^|\.)encoder\.", self.key) else "decoder"

    def is_last(self, config: Any) -> bool:
        """Whether no block of the stack comes after this one."""
        return bool(self.index == config.blocks[self.stack(config)] - 1)

    def is_read(self, config: Any) -> bool:
        """Whether the head reads this block's stack (not so the encoder before a decoder)."""
        return len(config.blocks) == 1 or self.stack(config) == "decoder"

    def rung(
        self, adapter: str, flow: torch.Tensor | None, before: torch.Tensor, after: torch.Tensor, given: dict[str, Any]
    ) -> torch.Tensor:
        """The side network's state after this block, from that before it (None at the first block).

        ``before`` and ``after``: what the block reads and gives, without a gradient; ``given``: all its arguments.
        """
        raise NotImplementedError

    def leave(self, adapter: str, flow: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """What the head reads in place of the last block's output ``after``."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's output; at the last block, what the side networks make of it."""
        if not self.working:
            return self.base_layer(*args, **kwargs)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        with torch.no_grad():
            output = self.base_layer(*args, **kwargs)
        before = given[self.names[0]].detach()
        after = output[0] if isinstance(output, tuple) else output
        result, flows = after, self.tuner.flows
        for adapter in self.working:
            config = self.configs[adapter]
            place = (adapter, self.stack(config))
            leaf = next(self.parameters_of(adapter))
            flow = None if self.index == 0 else flows.pop(place)
            flow = self.rung(adapter, flow, like(before, leaf), like(after, leaf), given)
            if self.is_last(config) and self.is_read(config):
                result = result + (self.leave(adapter, flow, like(after, leaf)) - after).to(after.dtype)
            else:
                flows[place] = flow
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def parameters_of(self, adapter: str) -> Any:
        """The parameters of one adapter's rung."""
        for name in self.adapter_layer_names:
            if adapter in (held := getattr(self, name)):
                leaf = held[adapter]
                yield from [leaf] if isinstance(leaf, nn.Parameter) else leaf.parameters()


class SideModel(Tuner):
    """The tuner, on which the states of side networks lie while a batch passes."""

    mixes_positions: ClassVar[bool] = True
    #: by adapter and stack
    flows: dict[tuple[str, str], torch.Tensor]

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Every block is needed in every step, and every position in every step of decoding."""
        super()._prepare_model(peft_config, model)
        self.flows = getattr(self, "flows", {})
        for module in (*model.modules(), getattr(model, "config", None)):
            for name in _CHANCES:
                if getattr(module, name, 0.0):
                    setattr(module, name, 0.0)


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """Attention of (batch, positions, heads, size) each; keys and values may have fewer heads, each for several."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (item.repeat_interleave(repeats, dim=2) if repeats > 1 else item for item in (key, value))
    done = nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=allowed, scale=scale
    )
    return done.transpose(1, 2).flatten(-2)


def seen(mask: torch.Tensor | None, queries: int, keys: int, *, causal: bool, device: Any) -> torch.Tensor | None:
    """Which positions may be looked at: (batch or 1, 1, queries, keys), from what transformers tells a block."""
    allowed = None
    if causal:
        allowed = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
    if mask is not None and mask.dim() == 4 and mask.shape[-1] == keys and mask.shape[-2] in (1, queries):
        given = mask[:, :1] if mask.dtype == torch.bool else mask[:, :1] > torch.finfo(mask.dtype).min / 2
        if queries == keys:
            # a padded position may see nothing at all; it then sees itself, so that no row of scores is empty
            given = given | torch.eye(queries, dtype=torch.bool, device=device)
        allowed = given if allowed is None else given & allowed
    return allowed
