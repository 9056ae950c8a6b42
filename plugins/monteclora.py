"""MonteCLoRA: LoRA whose first factor is averaged over random draws around it while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, add_penalty, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class MonteClora(LowRankMethod):
    """Draws around A have a trained spread and trained weights; the loss keeps both near a prior. A alone answers."""

    name = "monteclora"
    title = "MonteCLoRA"
    summary = "LoRA with trained noise on its first factor while it learns: steadier on small or noisy data."
    aliases = ("monte_carlo_lora",)
    # draws, scale of the noise and weight of the penalty as in peft
    references = (
        Reference(
            "Robust and Efficient Fine-tuning of LLMs with Bayesian Reparameterization of Low-Rank Adaptation",
            "https://arxiv.org/abs/2411.04358",
            2024,
        ),
    )
    rate_from = "LoRA's; the authors' script has 1e-4 for RoBERTa-base at an alpha of 64 and rank 8"
    formula = "Σ (r·(in + out) + r + N) over the target layers, N = num_samples"
    records_like = "lora"
    judged = False
    # a block that is run again draws again in peft 0.21, so that its gradients are of another step
    gradient_checkpointing = False
    # and its noise takes the type of the packed weights
    quantized_base = "no"
    limits = ("Where a task makes its loss itself (vectors for search), the penalty is not added.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, how many draws, and how far they go."""
        return (
            *super().hyperparameters(shape),
            Hyperparameter("num_samples", 8, "int", "draws a step", 2, 256, search=(4, 8, 16)),
            Hyperparameter("sample_scaler", 1e-4, "float", "scale of the noise", 1e-8, 1.0, log=True),
            Hyperparameter("kl_loss_weight", 1e-5, "float", "weight of the distance from the prior", 0, 1.0),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """LoRA's, and spread and weights of the draws."""
        layers = sum(item.count for item in self.targets(shape, values))
        return super().trainable_parameters(shape, values) + layers * (int(values["r"]) + int(values["num_samples"]))

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those, and peft's record of the prior."""
        layers = sum(item.count for item in self.targets(shape, values))
        rank, draws = int(values["r"]), int(values["num_samples"])
        return self.trainable_parameters(shape, values) + layers * (rank**2 + draws)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """LoRA's, and several forms of every draw."""
        plain, draws = super().memory(shape, values, compute_bytes), int(values["num_samples"])
        numbers = sum(item.runs * item.in_features for item in self.targets(shape, values)) * int(values["r"])
        return MemoryTraits(
            plain.kept_bytes_per_token,
            kept_under_autocast=plain.kept_under_autocast,
            kept_bytes_per_step=4.0 * numbers * (4 * draws + 1),
        )

    def variant(self, shape: ModelShape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The draws, made when they are wanted: peft would hold 150 steps of them."""
        from peft import MontecloraConfig

        names = ("num_samples", "sample_scaler", "kl_loss_weight")
        return {"monteclora_config": MontecloraConfig(buffer_size=1, **{name: values[name] for name in names})}

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's MonteCLoRA with the distance from the prior in the loss, which peft leaves to the caller."""
        wrapped = super().apply(model, values, context)
        for module in wrapped.modules():
            buffered: Any = getattr(module, "sampler", None)
            if hasattr(buffered, "buffer_size"):
                # noise that was drawn when the model was made is passed over: a resumed run would begin with it again
                buffered.index = buffered.buffer_size
        return add_penalty(wrapped, wrapped.base_model._get_monteclora_loss)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer MonteCLoRA."""
    return (MonteClora,)
