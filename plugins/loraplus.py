"""LoRA+: LoRA whose second factor learns faster than the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class LoraPlus(LowRankMethod):
    """LoRA with a learning rate of its own for B, which starts at zero and has further to go."""

    name = "loraplus"
    title = "LoRA+"
    summary = "LoRA with a larger learning rate for its second factor: the same adapter, learnt in fewer steps."
    aliases = ("lora_plus",)
    # Hayou et al. 2024, section 4: a ratio of 16 in general, 4 to 8 where the task is easy
    references = (
        Reference("LoRA+: Efficient Low Rank Adaptation of Large Models", "https://arxiv.org/abs/2402.12354", 2024),
    )
    rate_from = "ours: half of LoRA's for A, so that B has eight times LoRA's (Hayou et al. 2024 give the ratio)"
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    base_learning_rate = 2.5e-4
    limits = ("Brings its own AdamW: the recipe's choice of an optimizer does not reach it.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and how much faster B learns."""
        ratio = Hyperparameter(
            "rate_ratio", 16.0, "float", "rate of B over that of A", 1, 256, search=(4.0, 16.0), log=True
        )
        return (*super().hyperparameters(shape), ratio)

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any:
        """AdamW with two rates, by peft."""
        from peft.optimizers import create_loraplus_optimizer
        from torch.optim import AdamW

        return create_loraplus_optimizer(
            model, AdamW, lr=float(values["learning_rate"]), loraplus_lr_ratio=float(values["rate_ratio"])
        )


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer LoRA+."""
    return (LoraPlus,)
