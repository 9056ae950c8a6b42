"""Prefix tuning at every attention: encoder, decoder and cross-attention alike.

Li and Liang 2021 (arXiv 2101.00190) put trained keys and values before those of each attention. transformers calls
attention through a registry of functions, which hands over the attention module: ours puts the prefix there and calls
the fused function. The key/value cache holds no prefix and positions do not move: cached and uncached decoding agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftselect.tuners.attention import AttentionTuner
from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: name of our attention function in the configuration of a model
IMPLEMENTATION = "psel_prefix"


@dataclass
class PrefixConfig(TunerConfig):
    """Targets are attention modules (those which project keys and values, and call the attention function)."""

    type_name: ClassVar[str] = "PSEL_PREFIX"

    num_virtual_tokens: int = field(default=20, metadata={"help": "length of the prefix"})
    width: int = field(default=0, metadata={"help": "width of the keys of one attention: heads times head size"})
    projection: int = field(default=0, metadata={"help": "width of the MLP that makes the prefix; 0 for none"})


class PrefixLayer(TunerLayer):
    """An attention module with prefixes: keys and values of shape (tokens, width)."""

    adapter_layer_names: tuple[str, ...] = ("psel_prefix_key", "psel_prefix_value")
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_prefix_key", "psel_prefix_value")

    def __init__(self, base_layer: nn.Module, tuner: Tuner, key: str) -> None:
        super().__init__(base_layer, tuner, key)
        # the attention function sees the module alone; in a list, so that the layer is no part of what it wraps
        base_layer._psel_prefix = [self]  # type: ignore[assignment]

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """The prefix itself, unless a network makes it."""
        if config.projection:
            return {}
        shape = (config.num_virtual_tokens, config.width)
        return {name: nn.Parameter(torch.randn(shape) * 0.02) for name in ("key", "value")}

    def prefix(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one adapter: (tokens, width), or (batch, tokens, width) where they depend on the input."""
        config = self.configs[adapter]
        if not config.projection:
            return self.leaf("key", adapter), self.leaf("value", adapter)
        first = 2 * config.width * self.tuner.sites[adapter].index(self.key)
        outer = self.tuner.shared("outer", adapter)
        inner = torch.tanh(self.tuner.shared("inner", adapter)(self.tuner.shared("input", adapter)))
        both = slice(first, first + 2 * config.width)
        keys, values = functional.linear(inner, outer.weight[both], outer.bias[both]).chunk(2, dim=-1)
        return keys, values

    def prefixes(self, key: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the working adapters, in the shape and type of ``key`` (batch, heads, positions, size)."""
        batch, heads, _, size = key.shape
        for adapter in self.working:
            pair = []
            for tensor in self.prefix(adapter):
                split = tensor.view(*tensor.shape[:-1], heads, size).transpose(-3, -2)
                pair.append(split.expand(batch, *split.shape[-3:]).to(key.dtype))
            yield pair[0], pair[1]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The attention module's own forward, which calls :func:`prefix_attention`."""
        return self.base_layer(*args, **kwargs)


class PrefixModel(AttentionTuner):
    """The tuner; holds the MLP that makes prefixes, where there is one."""

    prefix = "psel_prefix_"
    implementation = IMPLEMENTATION
    tuner_layer_cls: type[TunerLayer] = PrefixLayer
    shared_modules: ClassVar[tuple[str, ...]] = ("psel_prefix_inner", "psel_prefix_outer")
    shared_parameters: ClassVar[tuple[str, ...]] = ("psel_prefix_input",)
    #: names of the attention modules of each adapter, in the model's order
    sites: dict[str, list[str]]

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """Li and Liang's network: an input of its own for each token, tanh between two linear layers."""
        self.sites = getattr(self, "sites", {}) | {adapter: self.attentions(config)}
        if not config.projection:
            return {}
        outputs = 2 * config.width * len(self.sites[adapter])
        return {
            "input": nn.Parameter(torch.randn(config.num_virtual_tokens, config.width)),
            "inner": nn.Linear(config.width, config.projection),
            "outer": nn.Linear(config.projection, outputs),
        }

    def attentions(self, config: Any) -> list[str]:
        """Names of the attention modules that a configuration targets."""
        names = (name.replace(".base_layer", "") for name, _ in self.model.named_modules())
        return [name for name in dict.fromkeys(names) if self._check_target_module_exists(config, name)]


def prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_bias: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' fused attention over the prefixes of ``module`` and its own keys and values."""
    held = getattr(module, "_psel_prefix", None)
    pairs = list(held[0].prefixes(key)) if held else []
    if pairs:
        queries, positions = query.shape[2], key.shape[2]
        added = sum(keys.shape[2] for keys, _ in pairs)
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if attention_mask is None and causal and queries > 1:
            shape = (1, 1, queries, positions)
            attention_mask = torch.ones(shape, dtype=torch.bool, device=key.device).tril(positions - queries)
        key = torch.cat([*(keys for keys, _ in pairs), key], dim=2)
        value = torch.cat([*(values for _, values in pairs), value], dim=2)
        if attention_mask is not None:
            attention_mask = attention_mask[..., :positions]
            attention_mask = functional.pad(attention_mask, (added, 0), value=attention_mask.dtype == torch.bool)
        if position_bias is not None:
            position_bias = functional.pad(position_bias, (added, 0))
        is_causal = False
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, position_bias=position_bias, is_causal=is_causal, **arguments
    )
    return result


def prefix_mask(*args: Any, **arguments: Any) -> Any:
    """The fused function's mask, always written out where it is causal: a prefix moves the diagonal."""
    return sdpa_mask(*args, **{**arguments, "allow_is_causal_skip": False})


AttentionInterface.register(IMPLEMENTATION, prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, prefix_mask)
register_tuner(PrefixConfig, PrefixModel)
