"""LoHa: an update that is the elementwise product of two low-rank matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class LoHa(UpdateMethod):
    """``s (B1 A1) * (B2 A2)``: two products of rank r, whose elementwise product has a rank of up to r²."""

    name = "loha"
    title = "LoHa"
    summary = "Multiplies two low-rank updates elementwise: rank r² for twice the parameters of rank r."
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: Hadamard product of two linear MLPs")
    # rank and scale as in peft; the PEFT project's runs have r=32
    references = (
        Reference(
            "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
            "https://arxiv.org/abs/2108.06098",
            2021,
        ),
        Reference("Navigating Text-To-Image Customization (LyCORIS)", "https://arxiv.org/abs/2309.14859", 2023),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ 2·r·(in + out) over the target layers"
    tuner = "LoHaConfig"
    rate = 1e-4
    narrow_rate = 1e-2
    limits = ("Makes an update as large as the weight in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, and rows dropped."""
        return (
            Hyperparameter("r", 8, "int", "rank of both factors", 1, 1024, search=(4, 8, 16, 32), log=True),
            Hyperparameter("alpha", 8, "int", "the update is scaled by alpha / r", 1, 4096, log=True),
            Hyperparameter("rank_dropout", 0.0, "float", "share of the update's rows dropped", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Two pairs of factors."""
        return 2 * int(values["r"]) * (linear.in_features + linear.out_features)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, and the update that multiplies it."""
        return Kept("float32", a_step=4.0 * linear.in_features * linear.out_features)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer LoHa."""
    return (LoHa,)
