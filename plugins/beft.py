"""BEFT: adds a trained bias to the value projections, whether they had one or not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Beft(UpdateMethod):
    """A vector added to the output of each value projection: the bias that matters most where data is scarce."""

    name = "beft"
    title = "BEFT"
    summary = "Adds one trained vector to the output of each value projection."
    aliases = ("bias_efficient_finetuning",)
    family = "additive"
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="none: parameter vector",
        parameters_adapted="addition",
        input_type="weights",
        integration_form="direct addition",
        workspace="attention: values",
    )
    # targets of the PEFT project's run
    references = (
        Reference("BEFT: Bias-Efficient Fine-Tuning of Language Models", "https://arxiv.org/abs/2509.15974", 2025),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ out over the target layers"
    tuner = "BeftConfig"
    rate = 1e-4
    narrow_rate = 1e-2
    default_targets = "attention-v"
    quantized_base = "possible"
    # there is nothing to merge into where a layer has no bias
    mergeable = False

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """None of its own."""
        return ()

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """A vector has none."""
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The vector."""
        return linear.out_features

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The vectors and the head."""
        return self.trainable_parameters(shape, values)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """Nothing."""
        return Kept()


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer BEFT."""
    return (Beft,)
