"""LLaMA-Adapter: prompts that the attention of the upper blocks reads through a gate, which is closed at first.

Zhang et al. 2023 (arXiv 2303.16199), equations 4 to 8. peft's ``AdaptionPromptConfig`` knows three models, in the width
of their weights; this one goes through transformers' registry of attention functions, like our prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftselect.tuners.attention import AttentionTuner
from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IMPLEMENTATION = "psel_adaption"


@dataclass
class AdaptionConfig(TunerConfig):
    """Targets are attention modules; ``keys`` and ``values`` name their layers which the prompts go through."""

    type_name: ClassVar[str] = "PSEL_ADAPTION"

    num_virtual_tokens: int = field(default=10, metadata={"help": "length of the prompt of a block"})
    width: int = field(default=0, metadata={"help": "width of the model"})
    keys: str = field(default="k_proj", metadata={"help": "name of the layer that makes keys"})
    values: str = field(default="v_proj", metadata={"help": "name of the layer that makes values"})


class AdaptionLayer(TunerLayer):
    """An attention module with a prompt (tokens, width) and a gate."""

    adapter_layer_names: tuple[str, ...] = ("psel_adaption_prompt", "psel_adaption_gate")
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_adaption_prompt", "psel_adaption_gate")

    def __init__(self, base_layer: nn.Module, tuner: Tuner, key: str) -> None:
        super().__init__(base_layer, tuner, key)
        # the attention function sees the module alone; in a list, so that the layer is no part of what it wraps
        base_layer._psel_adaption = [self]  # type: ignore[assignment]

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """A random prompt, a closed gate."""
        return {
            "prompt": nn.Parameter(torch.randn(config.num_virtual_tokens, config.width)),
            "gate": nn.Parameter(torch.zeros(1)),
        }

    def prompts(self, query: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Keys and values (1, heads, tokens, size) and the gate of the working adapters, in the width of ``query``."""
        _, heads, _, size = query.shape
        for adapter in self.working:
            config, prompt = self.configs[adapter], self.leaf("prompt", adapter).to(query.dtype)
            pair = []
            for name in (config.keys, config.values):
                made = getattr(self.base_layer, name)(prompt).view(len(prompt), -1, size).transpose(0, 1)
                pair.append(made.repeat_interleave(heads // made.shape[0], dim=0).unsqueeze(0).to(query.dtype))
            yield pair[0], pair[1], self.leaf("gate", adapter)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The attention module's own forward, which calls :func:`adaption_attention`."""
        return self.base_layer(*args, **kwargs)


class AdaptionModel(AttentionTuner):
    """The tuner."""

    prefix = "psel_adaption_"
    implementation = IMPLEMENTATION
    tuner_layer_cls = AdaptionLayer


def adaption_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' fused attention, and beside it what the queries read off the prompts of ``module``, gated."""
    result, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **arguments)
    held = getattr(module, "_psel_adaption", None)
    for keys, values, gate in held[0].prompts(query) if held else ():
        scores = query @ keys.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
        shares = gate * torch.softmax(scores, dim=-1, dtype=torch.float32)
        result = result + (shares.to(values.dtype) @ values).transpose(1, 2).to(result.dtype)
    return result, None


AttentionInterface.register(IMPLEMENTATION, adaption_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
register_tuner(AdaptionConfig, AdaptionModel)
