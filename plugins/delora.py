"""DeLoRA: a low-rank update whose length is one trained number, apart from its direction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class DeLora(UpdateMethod):
    """``λ/r · B N A``: N brings each of the r components to length one, λ says how far the weight may move."""

    name = "delora"
    title = "DeLoRA"
    summary = "LoRA with the length of the update bounded by one trained number: robust to a large rate."
    aliases = ("decoupled_lora",)
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: linear MLP, normalised")
    # values of the PEFT project's run
    references = (
        Reference("Decoupling Angles and Strength in Low-rank Adaptation", "https://arxiv.org/abs/2503.18225", 2025),
    )
    rate_from = "the PEFT project's run on Llama-3.2-3B"
    formula = "Σ (r·(in + out) + 1) over the target layers"
    tuner = "DeloraConfig"
    rate = 1e-3

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, and the first bound."""
        return (
            Hyperparameter("r", 32, "int", "rank of the update", 1, 1024, search=(8, 16, 32), log=True),
            Hyperparameter("delora_lambda", 15, "int", "bound of the update's length at the start", 1, 1000, log=True),
            Hyperparameter("module_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Both factors and the bound."""
        return int(values["r"]) * (linear.in_features + linear.out_features) + 1

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The lengths of the weight's columns."""
        return linear.in_features

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The scaled input, and what the second factor reads before and after it is normalised."""
        return Kept(a_position=4.0 * linear.in_features + 8.0 * int(values["r"]), held=4.0 * linear.in_features)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer DeLoRA."""
    return (DeLora,)
