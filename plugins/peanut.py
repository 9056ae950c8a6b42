"""PEANuT: a small non-linear network computes each update from the weight itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Peanut(UpdateMethod):
    """``s σ(Wᵀ A) B``, with further layers between them if wanted: the update is a function of the frozen weight."""

    name = "peanut"
    title = "PEANuT"
    summary = "Computes each update from its weight by a small trained network with a non-linearity."
    aliases = ("neat", "weight_aware_neural_tweakers")
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: non-linear MLP",
        input_type="weights",
        insertions="all layers",
    )
    # rank, scale and activation of the PEFT project's run
    references = (
        Reference(
            "PEANuT: Parameter-Efficient Adaptation with Weight-aware Neural Tweakers",
            "https://arxiv.org/abs/2410.01870",
            2024,
        ),
    )
    rate_from = (
        "the PEFT project's run; the authors' scripts have 1e-3 to 5e-3 for RoBERTa-base at scales of 0.01 to 1, 3e-4 "
        "for LLaMA-2-7B"
    )
    formula = "Σ (2·r·out + 2·D·r²) over the target layers, D = depth"
    tuner = "PeanutConfig"
    rate = 1e-4
    limits = ("Makes an update as large as the weight in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Width, depth, activation and scale."""
        names = ("relu", "gelu", "silu", "tanh")
        return (
            Hyperparameter("r", 1, "int", "width of the network", 1, 1024, search=(1, 8, 32), log=True),
            Hyperparameter("depth", 0, "int", "pairs of further layers", 0, 16, search=(0, 2)),
            Hyperparameter("act_fn", "relu", "str", "activation", choices=names),
            Hyperparameter("scaling", 32.0, "float", "the update is multiplied by it", 1e-3, 1e4, log=True),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """First and last layer, and those between them."""
        rank = int(values["r"])
        return 2 * rank * linear.out_features + 2 * int(values["depth"]) * rank**2

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, the update that multiplies it, the weight in float32, and the network's activations."""
        size = linear.in_features * linear.out_features
        inner = int(values["r"]) * linear.in_features * (1 + 4 * int(values["depth"]))
        return Kept("float32", a_step=4.0 * ((2 if width == 2 else 1) * size + inner))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer PEANuT."""
    return (Peanut,)
