"""GraLoRA: a low-rank update for each block of a weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class GraLora(UpdateMethod):
    """The weight is cut into k × k blocks, each with an update of rank r/k: LoRA's parameters, k times its rank."""

    name = "gralora"
    title = "GraLoRA"
    summary = "Cuts each weight into blocks with a small LoRA each: the same parameters, and k times the rank."
    aliases = ("granular_lora",)
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: linear MLPs of blocks")
    # values of the PEFT project's configuration, which are those of Jung et al. 2025
    references = (
        Reference(
            "GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning",
            "https://arxiv.org/abs/2505.20355",
            2025,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it Jung et al. 2025 and the PEFT project's "
        "configuration"
    )
    formula = "Σ r·(in + out) over the target layers"
    tuner = "GraloraConfig"
    rate = 2e-4
    narrow_rate = 1e-3
    takes_conv1d = True
    # not on a quantised base: peft 0.21 adds to the output of bitsandbytes' layers in place, which these do not allow
    divides: ClassVar[Mapping[str, Any]] = {"gralora_k": "both"}

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale and blocks."""
        blocks = self.divisor(shape, 2, "both")
        return (
            Hyperparameter("r", 32, "int", "rank, a multiple of gralora_k", 1, 1024, search=(16, 32, 64), log=True),
            Hyperparameter("alpha", 64, "int", "the update is scaled by alpha / r", 1, 4096, log=True),
            Hyperparameter("gralora_k", blocks, "int", "blocks a side", 1, 64, search=(2, 4)),
            Hyperparameter("gralora_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The rank is dealt out among the blocks."""
        if int(values["r"]) % int(values["gralora_k"]):
            return f"r={values['r']} is no multiple of gralora_k={values['gralora_k']}"
        return super().unsupported(shape, values)

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """As many as LoRA's."""
        return int(values["r"]) * (linear.in_features + linear.out_features)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, and what the second factors read, before and after it is dealt out."""
        return Kept("float32", a_position=8.0 * int(values["r"]))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer GraLoRA."""
    return (GraLora,)
