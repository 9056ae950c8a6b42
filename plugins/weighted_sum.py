"""Weighted sum of layers: a frozen speech encoder, the weights of a mixture of its layers, and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class WeightedSum(Method):
    """One number a layer."""

    name = "weighted_sum"
    title = "Weighted sum of layers"
    summary = "Trains how much of each frozen layer the head reads: the cheapest way to use a speech encoder well."
    family = "additive"
    aliases = ("weighted_layer_sum", "weighted-sum")
    structure = Structure(
        intra_connectivity="none: L+1 scalars",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="after the encoder",
        insertions="1",
        integration_form="weighted sum",
        workspace="layer outputs",
    )
    references = (
        Reference(
            "SUPERB: Speech processing Universal PERformance Benchmark", "https://arxiv.org/abs/2105.01051", 2021
        ),
    )
    rate_from = "Yang et al. 2021, section 3: the largest of 1e-4 to 1e-2, for short runs"
    formula = "L + 1"
    thesis = ("T2.12",)
    limits = ("Speech encoders under a classification or CTC head.", "Cannot be merged: every layer's output is read.")
    heads = frozenset({"audio_classification", "ctc"})
    acts_on = frozenset({"head"})
    quantized_base = "possible"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone."""
        return (Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True),)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A number for the input of the first block and for the output of each, and the head."""
        return shape.encoder_layers + 1 + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The backward pass ends at the mixture, which keeps every hidden state."""
        kept = (shape.encoder_layers + 1) * shape.hidden_size * compute_bytes
        return MemoryTraits(kept_bytes_per_token=(kept, 0), backward_reaches="top")

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our WeightedSumConfig; the encoder is called as the model type is, or "encoder"."""
        from peftselect import WeightedSumConfig

        return WeightedSumConfig(
            target_modules=f"{shape.model_type}|encoder",
            states=shape.encoder_layers + 1,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer the weighted sum."""
    return (WeightedSum,)
