"""Prefixes that depend on the input: instance-dependent prompts, alone or mixed with a prefix of the task's own.

A generator reads the frozen embedding of the instance and emits keys and values for every attention (Wu et al. 2022,
arXiv 2204.04497). Unified prompt learning mixes these with a task prefix, by a constant or by a gate that the instance
sets itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.prefix import PrefixConfig, PrefixLayer, PrefixModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class InstancePrefixConfig(PrefixConfig):
    """Targets are the attention modules of the stack that reads the instance."""

    type_name: ClassVar[str] = "PSEL_INSTANCE"

    embedding_width: int = field(default=0, metadata={"help": "width of the input embeddings"})
    generator_width: int = field(default=16, metadata={"help": "inner width of the generator"})
    mix: Literal["instance", "fixed", "dynamic"] = field(default="instance", metadata={"help": "what makes the prefix"})
    share: float = field(default=0.5, metadata={"help": "share of the instance's prefix in a fixed mix"})


class InstancePrefixLayer(PrefixLayer):
    """An attention module with prefixes made for each row of the batch."""

    adapter_layer_names = ("psel_instance_key", "psel_instance_value")
    parameter_names = ("psel_instance_key", "psel_instance_value")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """The task's own prefix, where there is one."""
        return {} if config.mix == "instance" else super().make(adapter, config)

    def prefix(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of (batch, tokens, width)."""
        config, tuner = self.configs[adapter], self.tuner
        size = config.num_virtual_tokens * config.width
        first = 2 * size * tuner.sites[adapter].index(self.key)
        outer = tuner.shared("outer", adapter)
        inner = torch.tanh(tuner.shared("inner", adapter)(tuner.instance))
        both = slice(first, first + 2 * size)
        emitted = functional.linear(inner, outer.weight[both], outer.bias[both])
        shape = (len(emitted), config.num_virtual_tokens, config.width)
        keys, values = (part.reshape(shape) for part in emitted.chunk(2, dim=-1))
        if config.mix == "instance":
            return keys, values
        share = config.share
        if config.mix == "dynamic":
            share = torch.sigmoid(tuner.shared("gate", adapter)(tuner.instance)).unsqueeze(-1)
        own_keys, own_values = self.leaf("key", adapter), self.leaf("value", adapter)
        return (1 - share) * own_keys + share * keys, (1 - share) * own_values + share * values


class InstancePrefixModel(PrefixModel):
    """The tuner, which holds the generator and the gate, and looks at every input before the model does."""

    prefix = "psel_instance_"
    tuner_layer_cls = InstancePrefixLayer
    uses_shared_state = True
    shared_modules = ("psel_instance_inner", "psel_instance_outer", "psel_instance_gate")
    shared_parameters = ()
    #: what the batch at hand looks like: (batch, embedding width)
    instance: torch.Tensor

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """The generator, which starts narrow, and the gate."""
        self.sites = getattr(self, "sites", {}) | {adapter: self.attentions(config)}
        outputs = 2 * config.num_virtual_tokens * config.width * len(self.sites[adapter])
        outer = nn.Linear(config.generator_width, outputs)
        nn.init.normal_(outer.weight, std=0.02)
        nn.init.normal_(outer.bias, std=0.02)
        made: dict[str, nn.Module | nn.Parameter] = {
            "inner": nn.Linear(config.embedding_width, config.generator_width),
            "outer": outer,
        }
        if config.mix == "dynamic":
            made["gate"] = nn.Linear(config.embedding_width, 1)
        return made

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        stack = model.get_encoder() if model.config.is_encoder_decoder else model.base_model  # type: ignore[operator, union-attr]
        if not getattr(stack, "_psel_looked_at", False):
            stack.register_forward_pre_hook(_Look(self, model.get_input_embeddings()), with_kwargs=True)  # type: ignore[operator, union-attr]
            stack._psel_looked_at = True  # type: ignore[union-attr]


class _Look:
    """A hook that takes the mean embedding of each row, padding left out, normalised; no gradient enters it."""

    def __init__(self, tuner: InstancePrefixModel, embeddings: nn.Module) -> None:
        self.tuner, self.embeddings = tuner, embeddings

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = kwargs.get("input_ids", args[0] if args else None)
        with torch.no_grad():
            states = self.embeddings(tokens) if tokens is not None else kwargs["inputs_embeds"]
            mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
            weight = torch.ones_like(states[..., :1]) if mask is None else mask.unsqueeze(-1).to(states.dtype)
            mean = (states * weight).sum(1) / weight.sum(1).clamp_min(1)
            self.tuner.instance = functional.layer_norm(mean.float(), mean.shape[-1:])


register_tuner(InstancePrefixConfig, InstancePrefixModel)
