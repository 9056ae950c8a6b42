"""Tiny-attention adapters: a second self-attention of very small heads on what an attention gives out.

Zhao et al. 2022 (arXiv 2211.01979).
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer, features, like
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAVES = ("query", "key", "value", "output")


@dataclass
class TinyAttentionConfig(TunerConfig):
    """Targets are the output projections of attentions; ``attention_modules`` is a pattern of the attentions."""

    type_name: ClassVar[str] = "PSEL_TINYATTN"

    heads: int = field(default=1, metadata={"help": "number of heads"})
    head_dim: int = field(default=1, metadata={"help": "size of a head"})
    attention_modules: str | None = field(default=None, metadata={"help": "pattern of the attention modules"})
    causal_modules: str | None = field(default=None, metadata={"help": "pattern of targets that must not look ahead"})


class TinyAttentionLayer(TunerLayer):
    """An output projection and its tiny attentions, whose own output is zero at first."""

    adapter_layer_names = tuple(f"psel_tinyattn_{name}" for name in _LEAVES)
    #: the mask that the attention around this layer was given
    mask: torch.Tensor | None = None

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Four projections."""
        width, inner = features(self.get_base_layer())[1], config.heads * config.head_dim
        output = nn.Linear(inner, width)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        return {**{name: nn.Linear(width, inner) for name in _LEAVES[:3]}, "output": output}

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The projection's output (batch, positions, width) and what the adapters add to it."""
        result: torch.Tensor = self.base_layer(states, *args, **kwargs)
        mask, self.mask = self.mask, None
        for adapter in self.working:
            config = self.configs[adapter]
            read = like(result, self.leaf("query", adapter))
            query, key, value = (self._heads(name, adapter, read) for name in _LEAVES[:3])
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=self._allowed(config, result, mask)
            )
            added = self.leaf("output", adapter)(attended.transpose(1, 2).flatten(-2))
            result = result + added.to(result.dtype)
        return result

    def _heads(self, name: str, adapter: str, states: torch.Tensor) -> torch.Tensor:
        """A projection of (batch, positions, width), split into (batch, heads, positions, size)."""
        config = self.configs[adapter]
        projected: torch.Tensor = self.leaf(name, adapter)(states)
        return projected.view(*projected.shape[:-1], config.heads, config.head_dim).transpose(1, 2)

    def _allowed(self, config: Any, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Which positions a position may look at: those of its own row, in a decoder none that come later."""
        positions = states.shape[1]
        allowed = None
        if config.causal_modules and re.fullmatch(config.causal_modules, self.key):
            allowed = torch.ones(positions, positions, dtype=torch.bool, device=states.device).tril()
        if mask is not None and mask.dim() == 4 and mask.shape[-1] == positions and mask.shape[-2] in (1, positions):
            given = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            # a padded position may see nothing at all; it then sees itself, so that no row of scores is empty
            given = given[:, :1] | torch.eye(positions, dtype=torch.bool, device=states.device)
            allowed = given if allowed is None else given & allowed
        return allowed


class TinyAttentionModel(Tuner):
    """The tuner; it listens to the attention modules for their masks."""

    prefix = "psel_tinyattn_"
    tuner_layer_cls = TinyAttentionLayer
    mixes_positions: ClassVar[bool] = True

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As every tuner does, and join each layer to the attention that it belongs to."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        pattern = self.peft_config[adapter_name].attention_modules
        layers = [layer for layer in model.modules() if isinstance(layer, TinyAttentionLayer)]
        for name, module in model.named_modules():
            if pattern and re.fullmatch(pattern, name) and not getattr(module, "_psel_masked", False):
                layer = _nearest(name, layers)
                module.register_forward_pre_hook(_CatchMask(layer), with_kwargs=True)
                module._psel_masked = True


def _nearest(name: str, layers: list[TinyAttentionLayer]) -> TinyAttentionLayer:
    """The layer whose name has the longest beginning in common with that of an attention module."""

    def common(layer: TinyAttentionLayer) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(layer.key, name, strict=False)))

    return max(layers, key=common)


class _CatchMask:
    """A hook that remembers the mask of a self-attention (that of a cross-attention speaks of another sequence)."""

    def __init__(self, layer: TinyAttentionLayer) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        if given.get("key_value_states") is not None or given.get("encoder_hidden_states") is not None:
            return
        self.layer.mask = given.get("attention_mask", given.get("mask"))


register_tuner(TinyAttentionConfig, TinyAttentionModel)
