"""LoKr: an update that is the Kronecker product of a small matrix and a low-rank one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class LoKr(UpdateMethod):
    """``s C ⊗ (B A)``: C is as wide as the factor; where the rank would save nothing, the second part is whole."""

    name = "lokr"
    title = "LoKr"
    summary = "A Kronecker product of a small matrix and a low-rank one: few parameters, and no bound on the rank."
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: Kronecker product with a linear MLP")
    # values of the PEFT project's run; a factor of 4 to 8 is LyCORIS's advice too
    references = (
        Reference("Navigating Text-To-Image Customization (LyCORIS)", "https://arxiv.org/abs/2309.14859", 2023),
        Reference("KronA: Parameter Efficient Tuning with Kronecker Adapter", "https://arxiv.org/abs/2212.10650", 2022),
    )
    rate_from = "the PEFT project's run on Llama-3.2-3B"
    formula = "Σ F² + r·(in + out)/F over the target layers, F = decompose_factor"
    tuner = "LoKrConfig"
    rate = 3e-3
    divides: ClassVar[Mapping[str, Any]] = {"decompose_factor": "both"}
    limits = ("Makes an update as large as the weight in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, how the weight is split, and rows dropped."""
        factor = self.divisor(shape, 4, "both")
        return (
            Hyperparameter("r", 32, "int", "rank of the second part", 1, 4096, search=(8, 16, 32, 64), log=True),
            Hyperparameter("alpha", 64, "int", "the update is scaled by alpha / r", 1, 4096, log=True),
            Hyperparameter("decompose_factor", factor, "int", "rows and columns of the first part", 1, 64),
            Hyperparameter("rank_dropout", 0.0, "float", "share of the update's rows dropped", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The small matrix, and the factors of the large one, or that itself where they would be no smaller."""
        factor = int(values["decompose_factor"])
        return factor**2 + self._second(linear, values)

    def _second(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        factor, rank = int(values["decompose_factor"]), int(values["r"])
        inside, outside = linear.in_features // factor, linear.out_features // factor
        return rank * (inside + outside) if rank < max(inside, outside) / 2 else inside * outside

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, the update that multiplies it, and its second part."""
        size = linear.in_features * linear.out_features
        return Kept("float32", a_step=4.0 * size * (1 + 1 / int(values["decompose_factor"]) ** 2))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer LoKr."""
    return (LoKr,)
