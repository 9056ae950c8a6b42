"""Riemannian preconditioned LoRA: the gradient of each factor is scaled by the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class Riemannian(LowRankMethod):
    """LoRA whose steps follow the geometry of low-rank matrices: ``(Bᵀ B + δ)⁻¹ g_A`` and ``g_B (A Aᵀ + δ)⁻¹``."""

    name = "riemannian"
    title = "Riemannian preconditioned LoRA"
    summary = "LoRA with the gradient of each factor scaled by the other: the same adapter, learnt in steadier steps."
    aliases = ("riemannian_lora", "scaled_adamw")
    # damping of the PEFT project's configuration
    references = (
        Reference(
            "Riemannian Preconditioned LoRA for Fine-Tuning Foundation Models", "https://arxiv.org/abs/2402.02347", 2024
        ),
    )
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    limits = ("Brings its own AdamW: the recipe's choice of an optimizer does not reach it.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and the damping."""
        damping = Hyperparameter(
            "reg", 1e-2, "float", "added to the diagonal before it is inverted", 1e-8, 10, log=True
        )
        return (*super().hyperparameters(shape), damping)

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any:
        """AdamW on scaled gradients, by peft."""
        from peft.optimizers import create_riemannian_optimizer
        from torch.optim import AdamW

        return create_riemannian_optimizer(model, AdamW, lr=float(values["learning_rate"]), reg=float(values["reg"]))


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer Riemannian preconditioned LoRA."""
    return (Riemannian,)
