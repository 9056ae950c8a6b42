"""FourierFT: an update given by a few of its Fourier coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class FourierFt(UpdateMethod):
    """``s · real(ifft2(F))``: F is zero but for the trained coefficients at places drawn from a seed."""

    name = "fourierft"
    title = "FourierFT"
    summary = "Trains a few Fourier coefficients of each update, at places that all layers share."
    structure = replace(UpdateMethod.structure, intra_connectivity="sparse: coefficients of a Fourier transform")
    # Gao et al. 2024, table 9: 1,000 coefficients, scales of 110 to 150 for RoBERTa-base. That it starts from zero is
    # peft's option: the paper draws the start
    references = (
        Reference(
            "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform", "https://arxiv.org/abs/2405.03003", 2024
        ),
    )
    rate_from = "Gao et al. 2024, table 9: 3e-2 to 9e-2 for RoBERTa-base; the PEFT project's run at 1e-4 learnt nothing"
    formula = "Σ n_frequency over the target layers"
    tuner = "FourierFTConfig"
    rate = 5e-2
    takes_conv1d = True
    quantized_base = "possible"
    constants: ClassVar[Mapping[str, Any]] = {"init_weights": True}
    simplified = ("The coefficients start at zero, where the paper draws them.",)
    limits = ("Makes an update as large as the weight in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many coefficients, and their scale."""
        words = self.target_setting(shape).default
        smallest = min(item.in_features * item.out_features for item in self.targets(shape, {"target_modules": words}))
        return (
            Hyperparameter(
                "n_frequency", min(1000, smallest // 4), "int", "coefficients a layer", 1, 10**7,
                search=(200, 1000, 5000), log=True,
            ),
            Hyperparameter("scaling", 150.0, "float", "the update is multiplied by it", 1e-2, 1e5, log=True),
        )  # fmt: skip

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There are no more coefficients than weights."""
        if why := super().unsupported(shape, values):
            return why
        smallest = min(item.in_features * item.out_features for item in self.targets(shape, values))
        if int(values["n_frequency"]) > smallest:
            return f"n_frequency={values['n_frequency']} is more than the {smallest} weights of a target"
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The coefficients."""
        return int(values["n_frequency"])

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, the update that multiplies it, and where its coefficients are."""
        size = linear.in_features * linear.out_features
        return Kept("float32", a_step=4.0 * size + 16 * int(values["n_frequency"]))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer FourierFT."""
    return (FourierFt,)
