"""Side-tuning: a small network that reads the same input, blended with the frozen one at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LadderMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class SideTuning(LadderMethod):
    """``a B(x) + (1 - a) S(x)`` with a trained share ``a``."""

    name = "side_tuning"
    title = "Side-tuning"
    summary = "Trains a small network on the same input, blended with the frozen one at the end by a learnt share."
    aliases = ("side-tuning", "sidetuning")
    structure = replace(
        LadderMethod.structure, insertions="1", integration_form="gated addition", workspace="input and last states"
    )
    # the share starts at a half
    references = (
        Reference(
            "Side-Tuning: A Baseline for Network Adaptation via Additive Side Networks",
            "https://arxiv.org/abs/1912.13503",
            2019,
        ),
    )
    rate_from = "ours; Zhang et al. 2020 train at 1e-4 (vision), Sung et al. 2022 side networks of T5-base at 3e-3"
    formula = "Σ over blocks of (attention, cross-attention and FFN of width s), and 2·d·s + d + 1; s = d/reduction"
    thesis = ("2.3",)
    limits = (
        "The side network sees nothing of the base's insides: quality lags behind methods that do.",
        "Side blocks keep no keys and values: generation goes without the cache.",
        "Cannot be merged: every call of the model pays for the side network.",
    )
    simplified = (
        "The side network starts from the base's weights, pruned by magnitude, where the paper distils or copies one.",
        "Its way out starts at zero, so that training starts at the base's states, scaled by the share.",
        "Side blocks have no biases and no position encodings; its first states are a projection of the embeddings.",
    )
    reads = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How narrow it is, the share of the base at first, and the rate."""
        return (
            self.reduction_setting(),
            Hyperparameter("alpha", 0.5, "float", "share of the base at first; it is trained", 0.01, 0.99),
            Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def merging(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Blended."""
        return {"merge": "blend", "share": float(values["alpha"])}


@hookimpl
def register_methods() -> tuple[type[LadderMethod], ...]:
    """Offer side-tuning."""
    return (SideTuning,)
