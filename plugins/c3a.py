"""C3A: an update that is a block-circular convolution of the input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class C3a(UpdateMethod):
    """The update consists of circulant blocks, each given by its first row; Fourier transforms apply it."""

    name = "c3a"
    title = "C3A"
    summary = "Trains one row of each circulant block of an update, whose rank may be full."
    aliases = ("circular_convolution",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: block-circular convolution",
        integration_form="direct addition",
    )
    # block of the PEFT project's configuration. That it starts from zero is peft's option: its default draws the start
    references = (
        Reference("Parameter-Efficient Fine-Tuning via Circular Convolution", "https://arxiv.org/abs/2407.19342", 2024),
    )
    rate_from = (
        "the PEFT project's configuration; Chen et al. 2024 tune at 1e-2 to 1, for the update is divided by the width"
    )
    formula = "Σ in·out/B over the target layers, B = block_size"
    tuner = "C3AConfig"
    rate = 3e-1
    # not on a quantised base: peft 0.21 adds to the output of bitsandbytes' layers in place, which these do not allow
    constants: ClassVar[Mapping[str, Any]] = {"init_weights": True}
    divides: ClassVar[Mapping[str, Any]] = {"block_size": "both"}

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Size of a block."""
        size = self.divisor(shape, 64, "both")
        return (Hyperparameter("block_size", size, "int", "rows and columns of a block", 1, 65536, log=True),)

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A row of each block."""
        return linear.in_features * linear.out_features // int(values["block_size"])

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input alone."""
        return Kept("float32")


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer C3A."""
    return (C3a,)
