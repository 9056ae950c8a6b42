"""SHiRA: trains single weights, at places drawn at random."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Shira(UpdateMethod):
    """Adds trained numbers to r · (in + out) weights of a layer: LoRA's parameters as a sparse update of high rank."""

    name = "shira"
    title = "SHiRA"
    summary = (
        "Adds trained numbers to a few single weights, as many as LoRA would train: quick to switch, high in rank."
    )
    aliases = ("sparse_high_rank_adapter",)
    family = "selective"
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="sparse: existing weights",
        inter_connectivity="fixed: sparse",
        parameters_adapted="existing weights",
        input_type="weights",
        insertion_form="in place",
        integration_form="direct addition (sparse)",
    )
    # rank as in peft
    references = (Reference("Sparse High Rank Adapters", "https://arxiv.org/abs/2406.13175", 2024),)
    rate_from = "the PEFT project's configuration"
    formula = "Σ r·(in + out) over the target layers"
    tuner = "ShiraConfig"
    rate = 3e-4
    constants: ClassVar[Mapping[str, Any]] = {"mask_type": "random", "random_seed": 42}
    limits = (
        "The places are drawn at random; peft has masks by size or gradient only for code that hands one over.",
        "Makes a weight of its own in every step, and keeps it for the backward pass.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many weights."""
        words = self.target_setting(shape).default
        linears = self.targets(shape, {"target_modules": words})
        most = min(x.in_features * x.out_features // (x.in_features + x.out_features) for x in linears)
        rank = max(1, min(32, most // 2))
        return (Hyperparameter("r", rank, "int", "r (in + out) weights of a layer are trained", 1, 1024, log=True),)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There are no more weights than that."""
        if why := super().unsupported(shape, values):
            return why
        for item in self.targets(shape, values):
            if self.layer_parameters(item, values) > item.in_features * item.out_features:
                return f"r={values['r']} asks for more than the weights of a target"
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """As many as LoRA's."""
        return int(values["r"]) * (linear.in_features + linear.out_features)

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Row and column of each."""
        return 2 * self.layer_parameters(linear, values)

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those weights alone, and the head."""
        return self.trainable_parameters(shape, values)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, the weight that multiplies it, and where it is changed."""
        places = self.layer_parameters(linear, values)
        a_step = float(width * linear.in_features * linear.out_features + 16 * places)
        return Kept("own", a_step=a_step, held=8.0 * places)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer SHiRA."""
    return (Shira,)
