"""WaveFT: an update given by a few of its wavelet coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class WaveFt(UpdateMethod):
    """The inverse wavelet transform of a matrix that is zero but for the trained coefficients."""

    name = "waveft"
    title = "WaveFT"
    summary = "Trains a few wavelet coefficients of each update, at places drawn from a seed."
    aliases = ("wavelet_finetuning",)
    structure = replace(UpdateMethod.structure, intra_connectivity="sparse: coefficients of a wavelet transform")
    # scale and wavelet (Daubechies 1) as in peft and in the PEFT project's run of 5,000 coefficients
    references = (
        Reference(
            "Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets",
            "https://arxiv.org/abs/2505.12532",
            2025,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ n_frequency over the target layers"
    tuner = "WaveFTConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    takes_conv1d = True
    quantized_base = "possible"
    limits = ("Makes an update as large as the weight in every step, and keeps it twice for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many coefficients, and their scale."""
        words = self.target_setting(shape).default
        smallest = min(item.in_features * item.out_features for item in self.targets(shape, {"target_modules": words}))
        return (
            Hyperparameter(
                "n_frequency", min(5000, smallest // 4), "int", "coefficients a layer", 1, 10**7,
                search=(1000, 2592, 5000), log=True,
            ),
            Hyperparameter("scaling", 25.0, "float", "the update is multiplied by it", 1e-2, 1e5, log=True),
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
        """The input, the update that multiplies it and a part of its transform, and where the coefficients are."""
        size = linear.in_features * linear.out_features
        return Kept("float32", a_step=8.0 * size + 16 * int(values["n_frequency"]))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer WaveFT."""
    return (WaveFt,)
