"""Full fine-tuning: every weight is trained. The yardstick, and the dearest in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class FullFinetuning(Method):
    """All weights of the model, in float32 while they are trained."""

    name = "full_finetuning"
    title = "Full fine-tuning"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Trains every weight: the quality to compare with when data abound, at the price of a model per task."
    family = "selective"
    aliases = ("full", "ft", "full_tuning", "fine_tuning", "full_fine_tuning")
    structure = Structure(
        intra_connectivity="the module's own",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct addition",
        workspace="all weights",
    )
    references = (
        Reference("BERT: Pre-training of Deep Bidirectional Transformers", "https://arxiv.org/abs/1810.04805", 2018),
        Reference("Exploring the Limits of Transfer Learning (T5)", "https://arxiv.org/abs/1910.10683", 2019),
    )
    rate_from = "Devlin et al. 2018 search 2e-5 to 5e-5; T5 models want more (1e-4 to 1e-3: Raffel et al. 2019)"
    thesis = ("T2.5", "T2.6", "T2.7", "T2.8", "T2.9", "T2.10", "T2.11", "T2.12", "T2.13")
    formula = "P, every parameter"
    acts_on = frozenset({"all"})
    multi_adapter = False
    adds_inference_cost = False
    saves_adapter = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone."""
        rate = 1e-4 if shape.relative_attention and shape.architecture == "encoder-decoder" else 3e-5
        return (Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-7, 1.0, log=True),)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All there are."""
        return shape.total_parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The base's own weights get gradients, so the inputs of its layers are kept."""
        return MemoryTraits(trains_base_weights=True)

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Thaw the whole model."""
        model.requires_grad_(True)
        return model


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer full fine-tuning."""
    return (FullFinetuning,)
