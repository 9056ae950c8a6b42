"""LoRA-FA: LoRA whose first factor stays as it was drawn, so that the inputs of the adapted layers are not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import LowRankMethod, MemoryTraits, Reference, hookimpl, reads_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ApplyContext, ModelShape


class LoraFa(LowRankMethod):
    """LoRA with a frozen random A: only B is trained, whose input has the width of the rank."""

    name = "lora_fa"
    title = "LoRA-FA"
    summary = "LoRA with its first factor frozen: half the parameters, and no full-width input is kept for them."
    aliases = ("lorafa",)
    references = (
        Reference(
            "LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning",
            "https://arxiv.org/abs/2308.03303",
            2023,
        ),
    )
    formula = "Σ r·out over the target layers"
    thesis = ("2.3",)
    records_like = "lora"
    judged = False
    simplified = ("B is trained by the recipe's optimizer, without the later versions' correction of its gradient.",)
    limits = ("Saves no more than LoRA does on disk: the frozen factor is saved too, since it is random.",)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """r out a target, and the head."""
        rank = int(values["r"])
        return sum(item.count * rank * item.out_features for item in self.targets(shape, values)) + (
            shape.head.parameters
        )

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Both factors."""
        return super().trainable_parameters(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """B's input, and dropout's mask of a byte an element; a frozen A keeps nothing of what it reads."""
        rank, mask = int(values["r"]), int(float(values["lora_dropout"]) > 0)
        full = {True: 0.0, False: 0.0}
        low = {True: 0.0, False: 0.0}
        for linear in self.targets(shape, values):
            side = reads_encoder(linear)
            full[side] += linear.runs * (4 * rank + mask * linear.in_features)
            low[side] += linear.runs * (2 * rank + mask * linear.in_features)
        return MemoryTraits((full[True], full[False]), kept_under_autocast=(low[True], low[False]))

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's LoRA with A frozen."""
        wrapped = super().apply(model, values, context)
        for name, parameter in wrapped.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
        return wrapped


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer LoRA-FA."""
    return (LoraFa,)
