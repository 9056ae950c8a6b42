"""MiCA: LoRA that writes only into the least used directions of each weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import LowRankMethod, MemoryTraits, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ModelShape


class Mica(LowRankMethod):
    """B holds the left singular vectors of the smallest singular values and stays; A starts at zero."""

    name = "mica"
    title = "MiCA"
    summary = "LoRA whose second factor is frozen at the directions that each weight uses least."
    aliases = ("minor_component_adaptation",)
    references = (
        Reference(
            "MiCA Learns More Knowledge Than LoRA and Full Fine-Tuning", "https://arxiv.org/abs/2604.01694", 2026
        ),
    )
    formula = "Σ r·in over the target layers"
    records_like = "lora"
    judged = False
    quantized_base = "no"
    lora_options: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "mica"}
    limits = (
        "Starts with a decomposition of every target's weight.",
        "Saves no more than LoRA does on disk: the frozen factor is saved too.",
    )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There are no more directions than a weight has."""
        if why := super().unsupported(shape, values):
            return why
        narrow = min(min(x.in_features, x.out_features) for x in self.targets(shape, values))
        return f"r={values['r']} is more than the {narrow} directions of a target" if values["r"] > narrow else None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """r in a target, and the head."""
        rank = int(values["r"])
        return sum(x.count * rank * x.in_features for x in self.targets(shape, values)) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Both factors."""
        return super().trainable_parameters(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The input of A alone: a frozen B keeps nothing of what it reads."""
        return self.low_rank_memory(shape, values, 0, compute_bytes)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer MiCA."""
    return (Mica,)
