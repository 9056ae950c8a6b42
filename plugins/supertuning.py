"""Super-Tuning: trains the largest weights of each layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class SuperTuning(UpdateMethod):
    """Adds trained numbers to the weights of the largest magnitude, which no data has to choose."""

    name = "supertuning"
    title = "Super-Tuning"
    summary = "Adds trained numbers to the largest weights of each layer."
    aliases = ("super_tuning",)
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
    # sparsity as in peft (the PEFT project's configurations go from 0.974 to 0.9935)
    references = (Reference("Super-Tuning", "https://arxiv.org/abs/2607.09287", 2026),)
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the default of the PEFT project's suite"
    )
    formula = "Σ (1 − s)·in·out over the target layers, s = sparsity"
    tuner = "SupertuningConfig"
    rate = 1e-4
    narrow_rate = 1e-2
    constants: ClassVar[Mapping[str, Any]] = {"save_precomputed_indices": True}
    limits = ("Makes a weight of its own in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How few weights, and which."""
        return (
            Hyperparameter(
                "sparsity", 0.99, "float", "share of the weights left alone", 0, 0.99999, search=(0.97, 0.99)
            ),
            Hyperparameter("select_top", True, "bool", "the largest weights; the smallest if not"),
        )

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """Whatever the weights make."""
        return None

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Something must be left to train."""
        if why := super().unsupported(shape, values):
            return why
        if any(not self.layer_parameters(item, values) for item in self.targets(shape, values)):
            return f"sparsity={values['sparsity']} leaves no weight of a target to train"
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The share that is trained, rounded down."""
        return int(linear.in_features * linear.out_features * (1 - float(values["sparsity"])))

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Where they are."""
        return self.layer_parameters(linear, values)

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those weights alone, and the head."""
        return self.trainable_parameters(shape, values)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, the weight that multiplies it, and where it is changed."""
        places = self.layer_parameters(linear, values)
        a_step = float(width * linear.in_features * linear.out_features + 8 * places)
        return Kept("own", a_step=a_step, held=4.0 * places)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer Super-Tuning."""
    return (SuperTuning,)
