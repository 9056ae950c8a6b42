"""Low-rank updates over weights in few bits, both chosen together: LoftQ and LQ-LoRA.

Li et al. 2023 (arXiv 2310.08659), algorithm 1: quantise what the factors do not cover, and give the factors what the
codes miss, in turn. The decomposition is repeated wherever an adapter is loaded, so that the file holds the trained
factors alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
from peftselect.tuners.low_rank import LowRankLayer
from peftselect.tuners.packed_linear import NormalLinear, PackedLinear, float_matrix
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class PackedConfig(TunerConfig):
    """``scale`` is a factor on the update, ``rounds`` how often codes and factors are chosen in turn."""

    type_name: ClassVar[str] = "PSEL_PACKED"

    r: int = field(default=16, metadata={"help": "rank of the update"})
    scale: float = field(default=1.0, metadata={"help": "factor on the update"})
    dropout: float = field(default=0.0, metadata={"help": "dropout before the update"})
    bits: int = field(default=4, metadata={"help": "bits of a weight"})
    block: int = field(default=64, metadata={"help": "weights that share a scale"})
    rounds: int = field(default=5, metadata={"help": "rounds of quantising and factorising"})


class PackedLayer(TunerLayer):
    """A layer that packs the linear layer which it is put around; taken off, it leaves one in floating point."""

    def packed(self, config: Any) -> PackedLinear:
        """The base, packed when the first adapter comes; a second one finds it so. ValueError where it wants others."""
        base = self.base_layer
        if not isinstance(base, PackedLinear):
            packed = self.pack(float_matrix(base), config)
            # peft holds every module that it found until the last is replaced: their weights must not wait for that
            base._parameters["weight"] = nn.Parameter(
                packed.weight.new_empty(0, dtype=packed.dtype), requires_grad=False
            )
            self.base_layer = base = packed
        elif (base.bits, base.block) != (config.bits, config.block or base.in_features):
            raise ValueError(f"the base is packed already, in {base.bits} bits and blocks of {base.block}")
        return base

    def pack(self, matrix: torch.Tensor, config: Any) -> PackedLinear:
        """The layer that holds ``matrix`` (out, in; float32) in few bits."""
        raise NotImplementedError

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """A plain layer: of the packed weights, with the adapters merged if so asked."""
        if merge:
            self.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        base = self.base_layer
        return base.plain() if isinstance(base, PackedLinear) else base


class PackedLowRankLayer(LowRankLayer, PackedLayer):
    """A packed layer with a low-rank update, which starts from what packing lost."""

    adapter_layer_names: tuple[str, ...] = ("psel_packed_down", "psel_packed_up")
    parameter_names: ClassVar[tuple[str, ...]] = adapter_layer_names

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Parameter]:
        """Factors of (rank, in) and (out, rank)."""
        if isinstance(self.base_layer, PackedLinear):
            raise ValueError("the base is packed for one adapter already, whose factors belong to its codes")
        self._started: tuple[torch.Tensor, torch.Tensor] | None = None
        self.packed(config)
        assert self._started is not None
        (down, up), self._started = self._started, None
        root = config.scale**0.5
        return {"down": nn.Parameter(down / root), "up": nn.Parameter(up / root)}

    def pack(self, matrix: torch.Tensor, config: Any) -> PackedLinear:
        """Codes of what the factors do not cover."""
        base, down, up = decompose(self.base_layer, matrix, config.bits, config.block, config.r, config.rounds)
        self._started = down, up
        return base

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter's own."""
        return self.leaf("down", adapter), self.leaf("up", adapter)

    def entering(self, states: torch.Tensor, adapter: str) -> torch.Tensor:
        """The input, some of it dropped in training."""
        return functional.dropout(states, self.configs[adapter].dropout, self.training)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put a floating-point layer in the packed one's place, with the update in its weight."""
        if isinstance(self.base_layer, PackedLinear):
            self._unmerged = [self.base_layer]  # in a list: no part of the layer meanwhile
            self.base_layer = self.base_layer.plain()
        super().merge(safe_merge=safe_merge, adapter_names=adapter_names)

    def unmerge(self) -> None:
        """Take the packed layer back."""
        if self.merged_adapters:
            self.base_layer = self._unmerged.pop()
            self.merged_adapters.clear()


class PackedModel(Tuner):
    """The tuner."""

    prefix = "psel_packed_"
    tuner_layer_cls = PackedLowRankLayer


def decompose(
    linear: nn.Module, matrix: torch.Tensor, bits: int, block: int, rank: int, rounds: int
) -> tuple[PackedLinear, torch.Tensor, torch.Tensor]:
    """``matrix`` (out, in) as codes and factors of (rank, in) and (out, rank), each chosen for what the other misses.

    The best of the rounds: a later one may be worse, in few bits above all (Guo et al. 2023, algorithm 1, stop there).
    """
    covered: torch.Tensor | float = 0.0
    best: tuple[PackedLinear, torch.Tensor, torch.Tensor] | None = None
    least = torch.tensor(float("inf"))
    for _ in range(max(rounds, 1)):
        packed = NormalLinear(linear, bits, block, matrix - covered)
        missed = matrix - packed.matrix()
        left, sizes, right = torch.linalg.svd(missed, full_matrices=False)
        root = sizes[:rank].sqrt()
        down, up = right[:rank] * root.unsqueeze(1), left[:, :rank] * root
        covered = up @ down
        error = sizes[rank:].norm()  # what neither covers
        if is_less(error, least):
            best, least = (packed, down.contiguous(), up.contiguous()), error
    assert best is not None
    return best


def is_less(error: torch.Tensor, least: torch.Tensor) -> bool:
    """Whether a round was the best so far (a trace, which has no numbers, takes the last)."""
    return bool(error < least)


register_tuner(PackedConfig, PackedModel)
