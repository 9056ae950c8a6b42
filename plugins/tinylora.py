"""TinyLoRA: a few numbers a layer, spread by a random projection over the core of a truncated SVD."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class TinyLora(UpdateMethod):
    """``U √S (Σ v_i P_i) √S V``: the leading singular vectors stay, the v are trained, the P are random."""

    name = "tinylora"
    title = "TinyLoRA"
    summary = "Trains a handful of numbers a layer in the leading singular directions of its weight."
    structure = replace(
        UpdateMethod.structure, intra_connectivity="dense: linear (SVD) around a random projection of a vector"
    )
    # Morris et al. 2026: rank 2 and 13 numbers and more, learnt by reinforcement; values of the PEFT project's
    # supervised run
    references = (Reference("Learning to Reason in 13 Parameters", "https://arxiv.org/abs/2602.04118", 2026),)
    rate_from = "the PEFT project's run on Llama-3.2-3B"
    formula = "Σ u over the target layers, u = the length of each vector"
    tuner = "TinyLoraConfig"
    rate = 1e-3
    takes_conv1d = True
    limits = (
        "Made for reinforcement learning; supervised, it learns little.",
        "Starts with a decomposition of every target's weight.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank of the core, and the length of the vectors."""
        return (
            Hyperparameter("r", 2, "int", "singular directions used", 1, 256, search=(2, 4, 8), log=True),
            Hyperparameter("u", 64, "int", "numbers trained a layer", 1, 65536, search=(16, 64, 256), log=True),
            Hyperparameter("tinylora_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The vector."""
        return int(values["u"])

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The singular vectors, and the projections."""
        rank = min(int(values["r"]), linear.in_features, linear.out_features)
        return rank * (linear.in_features + linear.out_features) + int(values["u"]) * rank**2

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What the core reads."""
        return Kept(a_position=4.0 * int(values["r"]), held=4.0 * self.layer_untrained(linear, values))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer TinyLoRA."""
    return (TinyLora,)
