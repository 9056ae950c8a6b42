"""Prefixes that a small network writes after reading solved examples, which the frozen base has encoded once.

After Phang et al. 2022 (HyperTuning, arXiv 2211.12485): a hypermodel reads few-shot examples of a task and emits the
prefix under which a frozen model works. There the hypermodel is a whole language model, trained on very many tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.prefix import PrefixConfig, PrefixLayer, PrefixModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

#: examples that the base encodes at a time
_ROWS = 4


@dataclass
class ExamplePrefixConfig(PrefixConfig):
    """Targets are attention modules; an example is ``encoded_width`` numbers, and its label where it has one."""

    type_name: ClassVar[str] = "PSEL_EXAMPLES"

    examples: int = field(default=16, metadata={"help": "solved examples that the network reads"})
    encoded_width: int = field(default=0, metadata={"help": "width of the base's last hidden states"})
    num_labels: int = field(default=0, metadata={"help": "labels of whole inputs; 0 where there are none"})
    inner_width: int = field(default=128, metadata={"help": "width of the network"})


class Examples(nn.Module):
    """The encoded examples, which are saved with the adapter: (examples, encoded width and labels)."""

    states: torch.Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.register_buffer("states", torch.zeros(config.examples, config.encoded_width + config.num_labels))


class ExamplePrefixLayer(PrefixLayer):
    """An attention module whose prefix is emitted."""

    adapter_layer_names: tuple[str, ...] = ("psel_examples_place",)
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_examples_place",)

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """Nothing of its own."""
        return {}

    def prefix(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (tokens, width): this place's part of what the network emits."""
        config, tuner = self.configs[adapter], self.tuner
        first = 2 * config.width * tuner.sites[adapter].index(self.key)
        both, outer = slice(first, first + 2 * config.width), tuner.shared("outer", adapter)
        keys, values = functional.linear(tuner.read(adapter), outer.weight[both], outer.bias[both]).chunk(2, dim=-1)
        return keys, values


class ExamplePrefixModel(PrefixModel):
    """The tuner, which holds the encoded examples and the network that reads them."""

    prefix = "psel_examples_"
    tuner_layer_cls = ExamplePrefixLayer
    uses_shared_state = True
    shared_modules = ("psel_examples_reader", "psel_examples_outer", "psel_examples_memory")
    shared_parameters = ("psel_examples_query",)
    #: which of the examples this training step reads
    chosen: torch.Tensor | None = None

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """A question for each token of the prefix, a layer that reads examples, one that writes keys and values."""
        self.sites = getattr(self, "sites", {}) | {adapter: self.attentions(config)}
        outer = nn.Linear(config.inner_width, 2 * config.width * len(self.sites[adapter]))
        nn.init.normal_(outer.weight, std=0.02)
        nn.init.normal_(outer.bias, std=0.02)
        return {
            "query": nn.Parameter(torch.randn(config.num_virtual_tokens, config.inner_width)),
            "reader": nn.Linear(config.encoded_width + config.num_labels, config.inner_width),
            "outer": outer,
            "memory": Examples(config),
        }

    def read(self, adapter: str) -> torch.Tensor:
        """What each token of the prefix is made of (tokens, inner width): attention over the examples."""
        states, query = self.shared("memory", adapter).states, self.shared("query", adapter)
        if self.chosen is not None and self.model.training:  # to write, the encoder is run before the whole model
            states = states.index_select(0, self.chosen)
        facts = self.shared("reader", adapter)(states)
        weights = torch.softmax(query @ facts.T / query.shape[-1] ** 0.5, dim=-1)
        return torch.tanh(query + weights @ facts)

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        if not getattr(model, "_psel_examples_drawn", False):
            model.register_forward_pre_hook(self._draw)
            model._psel_examples_drawn = True  # type: ignore[assignment]

    def _draw(self, module: nn.Module, args: Any) -> None:
        """In training each step reads another half of the examples, so that what is learnt is to read them."""
        number = self.peft_config[self.active_adapters[0]].examples if self.active_adapters else 0
        device = next(module.parameters()).device
        half = (number + 1) // 2
        if module.training and number > 1:
            self.chosen = torch.randperm(number, device=device)[:half]


def encode_examples(model: Any, batch: Mapping[str, torch.Tensor]) -> None:
    """Let the frozen base read a batch of solved examples and keep what it makes of each, normalised.

    ``model`` is a peft model under an :class:`ExamplePrefixConfig`; the batch may have any number of rows, which are
    gone through in turn until there are as many as it says. Labels of whole inputs are kept beside the states; of
    texts to be written the decoder's states are taken.
    """
    config = model.active_peft_config
    base, memory = model.get_base_model(), model.base_model.shared("memory", model.active_adapter)
    trains, states = base.training, []
    rows = len(batch["input_ids"])
    wanted = [number % rows for number in range(config.examples)]
    base.eval()
    with torch.no_grad(), model.disable_adapter():
        for start in range(0, len(wanted), _ROWS):
            part = {name: item[wanted[start : start + _ROWS]].to(base.device) for name, item in batch.items()}
            states.append(_encoded(base, part, config.num_labels))
        memory.states.copy_(torch.cat(states))
    base.train(trains)


def _encoded(base: Any, batch: dict[str, torch.Tensor], num_labels: int) -> torch.Tensor:
    """(rows, width and labels)."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    labels, mask = batch.get("labels"), inputs.get("attention_mask")
    if not base.config.is_encoder_decoder:
        states = base.base_model(**inputs).last_hidden_state
    elif labels is not None and not num_labels:
        states = base(**inputs, labels=labels, output_hidden_states=True).decoder_hidden_states[-1]
        mask = labels != -100
    else:
        states = base.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    weight = torch.ones_like(states[..., :1]) if mask is None else mask.unsqueeze(-1).to(states.dtype)
    mean = (states * weight).sum(1) / weight.sum(1).clamp_min(1)
    normed = functional.layer_norm(mean.float(), mean.shape[-1:])
    if not num_labels:
        return normed
    assert labels is not None  # there are labels of whole inputs
    told = labels if labels.is_floating_point() else functional.one_hot(labels, num_labels)
    return torch.cat([normed, told.float().view(len(normed), num_labels)], dim=1)


register_tuner(ExamplePrefixConfig, ExamplePrefixModel)
