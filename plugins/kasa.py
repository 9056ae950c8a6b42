"""KaSA: LoRA in the form of an SVD, over weights from which the smallest singular values are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, add_penalty, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Kasa(LowRankMethod):
    """``W − (its r smallest components) + s B diag(σ) A``; the loss keeps σ small and both factors orthogonal."""

    name = "kasa"
    title = "KaSA"
    summary = "LoRA with trained singular values, in place of the components that each weight needs least."
    aliases = ("knowledge_aware_singular_value_adaptation",)
    # weights of the penalties as in Wang et al. 2024 for GLUE, and in the PEFT project's configuration
    references = (
        Reference(
            "KaSA: Knowledge-Aware Singular-Value Adaptation of Large Language Models",
            "https://arxiv.org/abs/2412.06071",
            2024,
        ),
    )
    rate_from = "LoRA's; the authors' scripts have 4e-4 for RoBERTa-base over 100 epochs of CoLA"
    formula = "Σ r·(in + out + 1) over the target layers"
    records_like = "lora"
    judged = False
    # the components that are taken out stay out while the adapter is loaded
    starts_as_base = False
    multi_adapter = False
    quantized_base = "no"
    limits = (
        "Loading repeats the decomposition of the base, so that the adapter needs the very weights it was made from.",
        "Switching the adapter off leaves the base without what was taken from it.",
        "Where a task makes its loss itself (vectors for search), the penalties are not added.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and the weights of the penalties."""
        return (
            *super().hyperparameters(shape),
            Hyperparameter("beta", 1e-4, "float", "weight of the penalty on the singular values", 0, 10),
            Hyperparameter("gamma", 1e-3, "float", "weight of the penalty on factors that are not orthogonal", 0, 10),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Plain linear layers, of which something must be left."""
        if why := super().unsupported(shape, values):
            return why
        linears = self.targets(shape, values)
        if any(item.conv1d for item in linears):
            return f"peft's KaSA does not take the transposed linear layers of {shape.model_type}"
        narrow = min(min(item.in_features, item.out_features) for item in linears)
        return f"r={values['r']} takes all {narrow} components of a target" if values["r"] >= narrow else None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """LoRA's, and the singular values."""
        values_of_all = sum(item.count for item in self.targets(shape, values)) * int(values["r"])
        return super().trainable_parameters(shape, values) + values_of_all

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """LoRA's, and what the singular values multiply."""
        return self.low_rank_memory(shape, values, 2 * int(values["r"]), compute_bytes)

    def variant(self, shape: ModelShape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The penalties' weights."""
        from peft import KasaConfig

        return {"kasa_config": KasaConfig(beta=float(values["beta"]), gamma=float(values["gamma"]))}

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's KaSA with its penalties in the loss, which peft leaves to the caller."""
        wrapped = super().apply(model, values, context)
        return add_penalty(wrapped, wrapped.base_model._get_kasa_loss)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer KaSA."""
    return (Kasa,)
