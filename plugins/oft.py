"""OFT: turns the input of each layer by orthogonal blocks, which leaves the angles between its neurons alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Oft(UpdateMethod):
    """``W R``: R is block-diagonal, each block the Cayley transform of a trained skew-symmetric matrix."""

    name = "oft"
    title = "OFT"
    summary = "Rotates the inputs of frozen layers block by block, and so keeps the angles between their neurons."
    aliases = ("orthogonal_finetuning", "oftv2")
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: orthogonal blocks",
        insertion_form="sequential",
        integration_form="rotation",
    )
    # blocks as in peft (the PEFT project's run has 32 blocks of 96), Cayley transform by five terms of a Neumann series
    # as in Qiu et al. 2025
    references = (
        Reference(
            "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", "https://arxiv.org/abs/2306.07280", 2023
        ),
        Reference("Orthogonal Finetuning Made Scalable", "https://arxiv.org/abs/2506.19847", 2025),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ in·(B − 1)/2 over the target layers, B = oft_block_size"
    tuner = "OFTConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    quantized_base = "possible"
    divides: ClassVar[Mapping[str, Any]] = {"oft_block_size": "in"}

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Size of a block, and how many are left unturned in a step."""
        size = self.divisor(shape, 32, "in")
        return (
            Hyperparameter(
                "oft_block_size", size, "int", "inputs turned together", 2, 4096, search=(16, 32, 64), log=True
            ),
            Hyperparameter("module_dropout", 0.0, "float", "share of the blocks left out in a step", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The upper triangle of each block."""
        return linear.in_features * (int(values["oft_block_size"]) - 1) // 2

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, and the powers of the blocks."""
        return Kept("float32", a_step=16.0 * linear.in_features * int(values["oft_block_size"]))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer OFT."""
    return (Oft,)
