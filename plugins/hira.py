"""HiRA: a low-rank matrix that scales each weight, elementwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Hira(UpdateMethod):
    """``W ∘ (1 + B A)``: the update has the rank of the weight, the parameters of LoRA."""

    name = "hira"
    title = "HiRA"
    summary = "Multiplies each weight elementwise by a low-rank matrix: an update of high rank for LoRA's parameters."
    aliases = ("hadamard_high_rank_adaptation",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: Hadamard product of the weight and a linear MLP",
        integration_form="rescaling",
    )
    # rank of Huang et al. 2025
    references = (
        Reference(
            "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models",
            "https://openreview.net/forum?id=TwJrTz9cRS",
            2025,
        ),
    )
    rate_from = "the PEFT project's configuration, in the range of Huang et al. 2025"
    formula = "Σ r·(in + out) over the target layers"
    tuner = "HiraConfig"
    rate = 4.5e-3
    takes_conv1d = True
    limits = ("Makes an update as large as the weight in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank and dropout."""
        return (
            Hyperparameter("r", 32, "int", "rank of the factor", 1, 1024, search=(8, 16, 32), log=True),
            Hyperparameter("hira_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """As many as LoRA's."""
        return int(values["r"]) * (linear.in_features + linear.out_features)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, and the scaled weight that multiplies it."""
        return Kept("float32", a_step=4.0 * linear.in_features * linear.out_features)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer HiRA."""
    return (Hira,)
