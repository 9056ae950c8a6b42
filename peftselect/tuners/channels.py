"""Low-rank updates under which whole channels and heads are pruned while training: SPLoRA and LoRAPrune.

Hedegaard et al. 2022 (arXiv 2211.10155): ``W + s B A`` under a mask of channels, cut out in the end. Zhang et al.
2023 (arXiv 2305.18403): which channels go is told by the gradients of the factors alone, and their share grows by a
cubic schedule. A channel is what one layer (the reader) takes in and others (its feeders) give out: pruned, it is
hidden from the reader, after which no gradient reaches the feeders' rows either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner, TunerConfig, features
from peftselect.tuners.low_rank import LowRankLayer
from peftselect.tuners.registry import register_tuner
from peftselect.tuners.slicing import cut, set_width

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class ChannelConfig(TunerConfig):
    """``groups`` lists readers by their path in a block: [path, inputs a group, [[path of a feeder, rows], ...]]."""

    type_name: ClassVar[str] = "PSEL_CHANNELS"

    r: int = field(default=16, metadata={"help": "rank of the update"})
    scale: float = field(default=1.0, metadata={"help": "factor on the update"})
    dropout: float = field(default=0.0, metadata={"help": "dropout before the update"})
    groups: list[Any] = field(default_factory=list, metadata={"help": "what is pruned together"})
    sparsity: float = field(default=0.5, metadata={"help": "share of the groups of each reader that is pruned"})
    score: str = field(default="gradient", metadata={"help": "gradient (of the factors) or magnitude"})
    pruned: float = field(default=0.0, metadata={"help": "share that is pruned by now"})
    sliced: bool = field(default=False, metadata={"help": "whether merging cuts channels of one input out"})


class Kept(nn.Module):
    """A byte for each group of a reader: 1 while it is there."""

    mask: torch.Tensor

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(groups, dtype=torch.uint8))


class ChannelLayer(LowRankLayer):
    """A linear layer with a low-rank update; a reader hides the channels that are pruned from both."""

    adapter_layer_names: tuple[str, ...] = ("psel_channels_down", "psel_channels_up", "psel_channels_kept")
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_channels_down", "psel_channels_up")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """Factors of (rank, in) and (out, rank), the update zero at first, and for readers what is kept."""
        read, width = features(self.get_base_layer())
        down = torch.empty(config.r, read)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        leaves: dict[str, nn.Module | nn.Parameter] = {
            "down": nn.Parameter(down),
            "up": nn.Parameter(torch.zeros(width, config.r)),
        }
        if group := self.group(config):
            leaves["kept"] = Kept(read // group[1])
        return leaves

    def group(self, config: Any) -> Any | None:
        """The entry of ``groups`` whose reader this layer is."""
        return next((item for item in config.groups if self.block(item[0]) is not None), None)

    def block(self, path: str) -> str | None:
        """Name of the block in which this layer lies under ``path``; None where it does not."""
        block = self.key.removesuffix("." + path)
        return block if block != self.key and block.rpartition(".")[2].isdigit() else None

    def kept(self, adapter: str) -> torch.Tensor | None:
        """A byte for each input (in), 0 where it is pruned; None for a layer that is no reader."""
        held = self.psel_channels_kept
        if adapter not in held:
            return None
        mask: torch.Tensor = held[adapter].mask
        spread: torch.Tensor = mask.repeat_interleave(features(self.get_base_layer())[0] // len(mask))
        return spread

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter's own."""
        return self.leaf("down", adapter), self.leaf("up", adapter)

    def entering(self, states: torch.Tensor, adapter: str) -> torch.Tensor:
        """The input, some of it dropped in training."""
        return functional.dropout(states, self.configs[adapter].dropout, self.training)

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As without pruning, on an input whose pruned channels are zero."""
        for adapter in self.working if not self.merged else ():
            if (kept := self.kept(adapter)) is not None:
                states = states * kept.to(states.dtype)
        return super().forward(states, *args, **kwargs)

    def updated(self, adapter: str) -> torch.Tensor:
        """``W + s B A`` (out, in) in float32."""
        base = self.get_base_layer()
        weight: torch.Tensor = (base.weight.T if hasattr(base, "nf") else base.weight).detach().float()
        down, up = self.factors(adapter)
        added: torch.Tensor = (up @ down).detach().float() * self.configs[adapter].scale
        return weight + added

    def _add(self, adapter: str, sign: float) -> None:
        super()._add(adapter, sign)
        kept = self.kept(adapter)
        if kept is None:
            return
        base = self.get_base_layer()
        weight = base.weight.data if hasattr(base, "nf") else base.weight.data.T  # inputs first
        gone = kept == 0
        if sign > 0:
            self._gone = [weight[gone].clone()]
            weight[gone] = 0
        else:
            weight[gone] += self._gone.pop()


class ChannelModel(Tuner):
    """The tuner, which knows what is pruned together and prunes it."""

    prefix = "psel_channels_"
    tuner_layer_cls = ChannelLayer

    @property
    def unsettled(self) -> bool:
        """Whether the adapter that is trained is not yet as sparse as it is to be."""
        config = self.peft_config[self.active_adapters[0]]
        return bool(config.pruned < config.sparsity)

    def groups(self, adapter: str) -> Iterator[tuple[str, ChannelLayer, list[tuple[ChannelLayer, int]]]]:
        """(name, reader, feeders with their rows a group) of everything that is pruned."""
        for name, layer in list(self.model.named_modules()):
            if isinstance(layer, ChannelLayer) and adapter in layer.configs:
                if (group := layer.group(layer.configs[adapter])) is None:
                    continue
                found = [(self._at(f"{layer.block(group[0])}.{path}"), rows) for path, rows in group[2]]
                yield name, layer, [(feeder, rows) for feeder, rows in found if isinstance(feeder, ChannelLayer)]

    def _at(self, name: str) -> Any:
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            return None

    def importance(self, adapter: str) -> dict[str, torch.Tensor]:
        """Of each reader its groups' importance, from the gradients of now or from the weights (groups)."""
        gradient = self.peft_config[adapter].score == "gradient"
        found: dict[str, torch.Tensor] = {}
        for name, reader, feeders in self.groups(adapter):
            number = len(reader.psel_channels_kept[adapter].mask)
            parts = [_score(reader, adapter, gradient).sum(0).view(number, -1).sum(1)]
            parts += [_score(feeder, adapter, gradient).sum(1).view(number, -1).sum(1) for feeder, _ in feeders]
            # each layer weighs the same, however large its gradients are
            found[name] = torch.stack([part / part.norm().clamp_min(1e-8) for part in parts]).sum(0)
        return found

    def prune(self, adapter: str, importance: Mapping[str, torch.Tensor], share: float) -> None:
        """Hide the ``share`` of each reader's groups that matters least; what is hidden stays so."""
        for name, reader, _ in self.groups(adapter):
            mask = reader.psel_channels_kept[adapter].mask
            number = min(int(len(mask) * share + 1e-6), len(mask) - 1)
            ranked = importance[name].clamp_min(0) + 1e-12
            lowest = (ranked * mask).argsort(stable=True)[:number]
            mask.copy_(torch.ones_like(mask).index_fill_(0, lowest, 0))
        self.peft_config[adapter].pruned = share

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        """peft's own; merged, channels of one input are cut out of the layers where the configuration can say so."""
        adapter = self.active_adapters[0]
        sliced = merge and self.peft_config[adapter].sliced
        channels = [
            (name, [feeder.key for feeder, _ in feeders], reader.psel_channels_kept[adapter].mask > 0)
            for name, reader, feeders in (self.groups(adapter) if sliced else ())
            if reader.group(reader.configs[adapter])[1] == 1  # type: ignore[index]
        ]
        model = super()._unload_and_optionally_merge(merge, *args, **kwargs)
        for reader, feeders, kept in channels:
            old, places = len(kept), kept.nonzero().flatten()
            cut(model.get_submodule(reader), places, outputs=False)
            for feeder in feeders:
                cut(model.get_submodule(feeder), places, outputs=True)
            set_width(model.config, old, len(places))
        return model


def _score(layer: ChannelLayer, adapter: str, gradient: bool) -> torch.Tensor:
    """Importance of each weight of a layer (out, in).

    By gradient (Zhang et al. 2023, equation 10): what a step of the factors would change, times the weight; by
    magnitude: the square of the weight.
    """
    weight = layer.updated(adapter)
    if not gradient:
        return weight.square()
    down, up = layer.factors(adapter)
    if down.grad is None or up.grad is None:
        return torch.zeros_like(weight)
    with torch.no_grad():
        change = up.grad @ down + up @ down.grad - up.grad @ down.grad
    return (change.float() * weight).abs()


def cubic(step: int, steps: int, sparsity: float, warm_up: float = 0.1, settle: float = 0.1) -> float:
    """Share that is pruned after ``step`` of ``steps``: none at first, all in the last tenth, by a cubic between."""
    if step <= warm_up * steps:
        return 0.0 if step < (1 - settle) * steps else sparsity
    if step >= (1 - settle) * steps:
        return sparsity
    left = 1 - (step - warm_up * steps) / (steps * (1 - settle - warm_up))
    return float(sparsity * (1 - left**3))


register_tuner(ChannelConfig, ChannelModel)
