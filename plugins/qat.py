"""Quantization-aware training: all weights are trained through their own rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    ALL_HEADS,
    Hyperparameter,
    MemoryTraits,
    Method,
    Reference,
    Structure,
    hookimpl,
    path_pattern,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Qat(Method):
    """Full fine-tuning whose linear layers compute with rounded weights; gradients pass straight through."""

    name = "qat"
    title = "Quantization-aware training"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = (
        "Trains every weight while layers compute with few-bit copies, so that the model is ready to be quantised."
    )
    family = "selective"
    aliases = ("quantization_aware_training",)
    structure = Structure(
        intra_connectivity="the module's own",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing, rounded",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct addition",
        workspace="all weights",
    )
    # Jacob et al. 2017: 8 bits, straight-through rounding between the smallest and the largest weight
    references = (
        Reference(
            "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
            "https://arxiv.org/abs/1712.05877",
            2017,
        ),
    )
    rate_from = "as for full fine-tuning"
    thesis = ("2.2.3",)
    formula = "P, every parameter"
    acts_on = frozenset({"all"})
    multi_adapter = False
    adds_inference_cost = False
    saves_adapter = False
    judged = False
    limits = (
        "Training holds every weight in floating point, as full fine-tuning does: what is saved is memory afterwards.",
        "The model is written in floating point, each linear layer of its blocks on a grid of 2^bits levels an output.",
    )
    simplified = ("Weights alone are rounded; the paper rounds activations, too.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Bits and rate."""
        rate = 1e-4 if shape.relative_attention and shape.architecture == "encoder-decoder" else 3e-5
        return (
            Hyperparameter("bits", 8, "int", "bits of a weight", 2, 8, search=(4, 8)),
            Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-7, 1.0, log=True),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All there are."""
        return shape.total_parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Those of full fine-tuning, and the rounded copies that the products keep."""
        return MemoryTraits(trains_base_weights=True, rounds_weights=True)

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Thaw the whole model, and round in its blocks."""
        from peftselect import train_rounded

        model.requires_grad_(True)
        paths = (linear.path for linear in context.shape.select("all-linear"))
        return train_rounded(model, path_pattern(paths), int(values["bits"]))


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer quantization-aware training."""
    return (Qat,)
