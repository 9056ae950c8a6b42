"""BOFT: orthogonal fine-tuning by a product of sparse rotations, and a trained scale for each output."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Boft(UpdateMethod):
    """``diag(s) W R``: R is block-diagonal and orthogonal, s scales each output."""

    name = "boft"
    title = "BOFT"
    summary = "Rotates the inputs of frozen layers in small blocks, and scales their outputs."
    aliases = ("orthogonal_butterfly",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: orthogonal blocks",
        insertion_form="sequential",
        integration_form="rotation",
    )
    # blocks as in peft and in the PEFT project's configuration
    references = (
        Reference(
            "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
            "https://arxiv.org/abs/2311.06243",
            2023,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ (in·B + out) over the target layers, B = boft_block_size"
    tuner = "BOFTConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    quantized_base = "possible"
    divides: ClassVar[Mapping[str, Any]] = {"boft_block_size": "in"}
    simplified = (
        "One butterfly factor: more of them need an extension that peft compiles for the GPU when it is used.",
    )
    limits = ("Makes and keeps matrices of in × in for every target.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Size of a block."""
        size = self.divisor(shape, 4, "in")
        return (
            Hyperparameter("boft_block_size", size, "int", "inputs turned together", 2, 4096, search=(4, 8), log=True),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Whole blocks, and a scale for each output."""
        return linear.in_features * int(values["boft_block_size"]) + linear.out_features

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input and the output that is scaled; the rotation at several stages; a permutation is held."""
        square = float(linear.in_features**2)
        blocks = 12.0 * linear.in_features * int(values["boft_block_size"])
        a_step = (6 if width == 2 else 8) * square + blocks
        return Kept("own", a_position=float(width * linear.out_features), a_step=a_step, held=4 * square)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer BOFT."""
    return (Boft,)
