"""MeZO over LoRA: the factors of a low-rank update trained by the difference of two forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class MezoLora(LowRankMethod):
    """LoRA without a backward pass: an adapter learnt in the memory of inference."""

    name = "mezo_lora"
    title = "MeZO over LoRA"
    summary = "Trains LoRA's factors by the difference of two losses: an adapter in the memory of inference."
    aliases = ("mezo+lora", "lora_mezo")
    # Malladi et al. 2023, tables 15 and 16: epsilon 1e-3 (RoBERTa-large) or 1e-2 (OPT), rank 8, alpha 16, held constant
    references = (
        Reference("Fine-Tuning Language Models with Just Forward Passes", "https://arxiv.org/abs/2305.17333", 2023),
    )
    rate_from = "Malladi et al. 2023, tables 15 and 16: 1e-5 to 1e-4"
    formula = "Σ r·(in + out) over the target layers"
    thesis = ("2.3",)
    limits = (
        "Wants ten to a hundred times as many steps as training by gradients: the paper takes 20,000 to 100,000.",
        "Learns where the task is close to what the model was pretrained for: the paper asks by prompts.",
        "Dropout is off while it trains, as in the paper.",
    )
    judged = False
    forward_only = True
    gradient_checkpointing = False  # nothing is kept that could be spared

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, how far the factors are moved to look, and a rate of its own."""
        own = ("learning_rate", "lora_dropout")
        return (
            *(item for item in super().hyperparameters(shape) if item.name not in own),
            Hyperparameter(
                "epsilon", 1e-3, "float", "how far factors are moved to both sides", 1e-6, 1.0,
                search=(1e-3, 1e-2), log=True,
            ),
            Hyperparameter(
                "learning_rate", 1e-4, "float", "peak learning rate", 1e-8, 1.0, search=(1e-5, 5e-5, 1e-4), log=True
            ),
        )  # fmt: skip

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """As it is: the paper's does not follow the rank."""
        return float(values["learning_rate"])

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """There is no backward pass."""
        return MemoryTraits(backward_reaches="nothing")

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's LoraConfig without dropout, which would blur the difference of both losses."""
        return super().peft_config(shape, {**values, "lora_dropout": 0.0}, context)

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any:
        """Zeroth-order descent; a direction is drawn again from its seed."""
        from peftselect import ZerothOrderSGD

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return ZerothOrderSGD(trained, lr=float(values["learning_rate"]), epsilon=float(values["epsilon"]))


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer MeZO over LoRA."""
    return (MezoLora,)
