"""Mixout: full fine-tuning in which random weights are put back to the base's at each step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Reference, Structure, WholeChangeMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Mixout(WholeChangeMethod):
    """Dropout on the way of the weights from the base, not on the weights."""

    name = "mixout"
    title = "Mixout"
    summary = "Full fine-tuning that puts random weights back to the base's at each step: steadier with few examples."
    aliases = ("mix_out",)
    structure = Structure(
        intra_connectivity="the module's own",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct addition",
        workspace="all weights",
    )
    # Lee et al. 2020, section 5: chances of 0.7, 0.8 and 0.9
    references = (
        Reference(
            "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models",
            "https://arxiv.org/abs/1909.11299",
            2019,
        ),
    )
    rate_from = "as for full fine-tuning; Lee et al. 2020 have 2e-5 for BERT-large"
    thesis = ("T2.9",)
    formula = "P, every parameter"
    limits = (
        "Trains all weights, beside a frozen copy of them: it needs the memory of full fine-tuning and more.",
        "The adapter's file is as large as the model's in float32.",
        "Unmerged, every call of the model adds the change to a copy of each weight.",
    )
    simplified = ("The model's own dropout stays as it is; the published code turns it off where weights are mixed.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The chance, and the rate."""
        mix = Hyperparameter(
            "mix", 0.9, "float", "chance of a weight of a matrix to be the base's in a step", 0.0, 0.99,
            search=(0.7, 0.8, 0.9),
        )  # fmt: skip
        return (mix, self.rate_setting(shape))

    def kept(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that is trained, none of it chosen."""
        return 0

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Every weight."""
        return shape.total_parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A number for each."""
        return self.trainable_parameters(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Of every draw a byte a number is kept as well."""
        traits = super().memory(shape, values, compute_bytes)
        return replace(traits, kept_bytes_per_step=traits.kept_bytes_per_step + self.copied_weights(shape, values))

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """A whole change, part of which is dropped."""
        return {"kind": "dense", "dropout": values["mix"]}


@hookimpl
def register_methods() -> tuple[type[WholeChangeMethod], ...]:
    """Offer Mixout."""
    return (Mixout,)
