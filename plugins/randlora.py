"""RandLoRA: a full-rank update out of many scaled random low-rank products that all layers share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


def _bases(small: int, values: Mapping[str, Any]) -> int:
    """How many products of rank r make up the smaller width of a weight."""
    return math.ceil(small / int(values["r"]))


class RandLora(UpdateMethod):
    """``Σ B_j Λ_j A Γ_j``: the random B_j and A stay and are shared; the diagonal Λ_j and Γ_j are trained."""

    name = "randlora"
    title = "RandLoRA"
    summary = "Sums random low-rank products to full rank, and trains the diagonals between them."
    structure = replace(UpdateMethod.structure, parameter_sharing="across layers")
    # Albert et al. 2025; rank and scale as in peft (alpha is twenty times r)
    references = (
        Reference(
            "RandLoRA: Full-rank parameter-efficient fine-tuning of large models",
            "https://arxiv.org/abs/2502.00987",
            2025,
        ),
    )
    rate_from = "the authors' scripts: 1e-4 for RoBERTa and for language models"
    formula = "Σ ⌈min(in, out)/r⌉·(r + min(in, out)) over the target layers"
    tuner = "RandLoraConfig"
    rate = 1e-4
    takes_conv1d = True
    quantized_base = "possible"
    # peft would save the random matrices once a layer, each time as large as the layer's weight
    constants: ClassVar[Mapping[str, Any]] = {"save_projection": False}
    limits = (
        "A smaller r trains more: it takes more products to fill the rank.",
        "Loading draws the random matrices again from their seed, which the file does not hold.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank of each product, and the scale."""
        return (
            Hyperparameter("r", 32, "int", "rank of each random product", 1, 4096, search=(16, 32, 64), log=True),
            Hyperparameter("randlora_alpha", 640, "int", "the update is scaled by alpha / r", 1, 10**6, log=True),
            Hyperparameter("randlora_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """Full."""
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Both diagonals of every product."""
        small = min(linear.in_features, linear.out_features)
        return _bases(small, values) * (int(values["r"]) + small)

    def shared_held(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """One random A, and a random B for each product of the widest target."""
        small, large = self._widths(shape, values)
        return int(values["r"]) * (small + large * _bases(small, values))

    def _widths(self, shape: ModelShape, values: Mapping[str, Any]) -> tuple[int, int]:
        linears = self.targets(shape, values)
        widest = (max(item.in_features for item in linears), max(item.out_features for item in linears))
        return min(widest), max(widest)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What the scaled product reads, itself, and the part of the random matrices that a smaller layer cuts out."""
        small, large = sorted((linear.in_features, linear.out_features))
        rows = _bases(small, values) * int(values["r"])
        cut = large * rows if _bases(small, values) < _bases(self._widths(shape, values)[0], values) else 0
        first = linear.in_features <= linear.out_features
        return Kept("float32" if first else "", 0.0 if first else 4.0 * rows, a_step=4.0 * (rows * small + cut))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer RandLoRA."""
    return (RandLora,)
