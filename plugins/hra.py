"""HRA: turns the input of each layer by a chain of Householder reflections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Hra(UpdateMethod):
    """``W H_1 … H_r``: each H reflects at a trained vector; they start in pairs that cancel each other."""

    name = "hra"
    title = "HRA"
    summary = "Multiplies each weight by a chain of trained reflections: an orthogonal and a low-rank update at once."
    aliases = ("householder_reflection_adaptation",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: chain of reflections",
        insertion_form="sequential",
        integration_form="rotation",
    )
    # Yuan et al. 2024: ranks of 8 to 32
    references = (
        Reference(
            "Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation",
            "https://arxiv.org/abs/2405.17484",
            2024,
        ),
    )
    rate_from = (
        "the authors' scripts for DeBERTa-base: 4e-3 (CoLA, RTE) to 1e-2 (MNLI); for models wider than 1,024 the PEFT "
        "project's configuration (theirs for LLaMA-2-7B: 1e-5)"
    )
    formula = "Σ r·in over the target layers"
    tuner = "HRAConfig"
    rate = 1e-4
    narrow_rate = 4e-3
    limits = ("Keeps r + 1 matrices of in × in for the backward pass of every target: a large r needs much memory.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length of the chain."""
        return (Hyperparameter("r", 8, "int", "reflections, an even number", 2, 256, search=(4, 8, 16), log=True),)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Reflections cancel each other in pairs."""
        if int(values["r"]) % 2:
            return f"r={values['r']} is odd: the reflections start in pairs"
        return super().unsupported(shape, values)

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A vector for each reflection."""
        return int(values["r"]) * linear.in_features

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input; the rotation behind each reflection; the weight before (a copy, in 16 bits) and after it."""
        rank, square = int(values["r"]), linear.in_features**2
        weights = (2 if width == 2 else 1) * linear.in_features * linear.out_features
        return Kept("float32", a_step=4.0 * ((rank + 1) * square + weights + 2 * rank * linear.in_features))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer HRA."""
    return (Hra,)
