"""MeZO: every weight trained by the difference of two forward passes, in the memory of inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Mezo(Method):
    """All weights, moved along random directions by how much the loss differs on both sides."""

    name = "mezo"
    title = "MeZO"
    summary = "Trains every weight by the difference of two losses: no gradients, no more memory than inference."
    family = "selective"
    aliases = ("mezo_full",)
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
    # epsilon 1e-3, held constant: Malladi et al. 2023, tables 15 and 16
    references = (
        Reference("Fine-Tuning Language Models with Just Forward Passes", "https://arxiv.org/abs/2305.17333", 2023),
    )
    rate_from = "Malladi et al. 2023, tables 15 and 16: 1e-7 and 1e-6 (RoBERTa-large, OPT)"
    formula = "P, every parameter"
    thesis = ("2.3",)
    limits = (
        "Wants ten to a hundred times as many steps as training by gradients: the paper takes 20,000 to 100,000.",
        "Learns where the task is close to what the model was pretrained for: the paper asks by prompts.",
        "Over a base in 16 bits small updates are lost in rounding; float32 keeps them.",
    )
    acts_on = frozenset({"all"})
    judged = False
    forward_only = True
    multi_adapter = False
    gradient_checkpointing = False  # nothing is kept that could be spared
    adds_inference_cost = False
    saves_adapter = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How far the weights are moved to look, and the rate."""
        return (
            Hyperparameter("epsilon", 1e-3, "float", "how far weights are moved to both sides", 1e-6, 1.0, log=True),
            Hyperparameter(
                "learning_rate", 1e-6, "float", "peak learning rate", 1e-9, 1.0, search=(1e-7, 1e-6, 1e-5), log=True
            ),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All there are."""
        return shape.total_parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """There is no backward pass."""
        return MemoryTraits(backward_reaches="nothing", trains_base_weights=True)

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Thaw the whole model."""
        model.requires_grad_(True)
        return model

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any:
        """Zeroth-order descent; a direction is drawn again from its seed."""
        from peftselect import ZerothOrderSGD

        return ZerothOrderSGD(model.parameters(), lr=float(values["learning_rate"]), epsilon=float(values["epsilon"]))


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer MeZO over all weights."""
    return (Mezo,)
