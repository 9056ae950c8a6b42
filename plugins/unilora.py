"""Uni-LoRA: every number of every low-rank factor is one of a single trained vector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape

#: numbers of the factors that share one of the vector, at least
_SHARERS = 4


class UniLora(UpdateMethod):
    """A random projection that keeps lengths spreads one vector over all factors of the model."""

    name = "unilora"
    title = "Uni-LoRA"
    summary = "LoRA for the whole model out of one trained vector, which a random projection spreads over the factors."
    aliases = ("uni_lora",)
    structure = replace(UpdateMethod.structure, parameter_sharing="across layers", insertions="all layers")
    # Li et al. 2025: rank 4 everywhere, 23,040 numbers for GLUE, 524,288 for language models of 7 billion
    references = (Reference("Uni-LoRA: One Vector is All You Need", "https://arxiv.org/abs/2506.00799", 2025),)
    rate_from = "the PEFT project's configurations"
    formula = "theta_d_length in all"
    tuner = "UniLoraConfig"
    rate = 2e-3
    takes_conv1d = True
    # not on a quantised base: peft 0.21 keeps the projection's scales in the type of the packed weights, as zeros
    # both factors are made of the vector, which must not start at zero
    starts_as_base = False
    limits = ("Loading draws the projection again from its seed, which the file does not hold.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, and the length of the vector: as in the paper, but never so long that hardly anything is shared."""
        words = self.target_setting(shape).default
        numbers = sum(
            item.count * 4 * (item.in_features + item.out_features)
            for item in self.targets(shape, {"target_modules": words})
        )
        length = max(1, min(23_040, numbers // _SHARERS))
        return (
            Hyperparameter("r", 4, "int", "rank of the updates", 1, 256, search=(4, 8), log=True),
            Hyperparameter("theta_d_length", length, "int", "length of the trained vector", 1, 10**8, log=True),
            Hyperparameter("unilora_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """None of its own."""
        return 0

    def shared_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The vector."""
        return int(values["theta_d_length"])

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The inputs of both factors and these themselves; their indices and scales are held."""
        numbers = float(values["r"]) * (linear.in_features + linear.out_features)
        return Kept("float32", a_position=4.0 * values["r"], a_step=4 * numbers, held=12 * numbers)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer Uni-LoRA."""
    return (UniLora,)
