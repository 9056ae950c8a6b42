"""VeLoRA: LoRA that keeps its inputs compressed for the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, hookimpl, reads_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class Velora(LowRankMethod):
    """Each input is cut into groups, and each group kept as one number: its part along a common direction."""

    name = "velora"
    title = "VeLoRA"
    summary = "LoRA whose inputs are kept as one number a group: less memory, for a rough gradient of the first factor."
    # peft's groups; Miles et al. 2024 cut the width into as many for a language model of 7 billion parameters
    references = (
        Reference(
            "VeLoRA: Memory Efficient Training using Rank-1 Sub-Token Projections",
            "https://arxiv.org/abs/2405.17991",
            2024,
        ),
    )
    rate_from = "LoRA's; the authors' script has 4e-4 for LLaMA-7B at rank 32"
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    # peft 0.21 refuses it on layers of bitsandbytes
    quantized_base = "no"
    limits = ("The gradient of the first factor is that of the compressed input.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and how finely inputs are kept."""
        groups = Hyperparameter(
            "num_groups", min(64, shape.hidden_size), "int", "numbers kept of an input", 1, 65536, search=(32, 64, 128)
        )
        return (*super().hyperparameters(shape), groups)

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The factors, and each layer's direction."""
        groups, linears = int(values["num_groups"]), self.targets(shape, values)
        return self.trainable_parameters(shape, values) + sum(x.count * -(-x.in_features // groups) for x in linears)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """A number a group, B's input, and dropout's mask of a byte an element."""
        numbers, mask = int(values["r"]) + int(values["num_groups"]), int(float(values["lora_dropout"]) > 0)
        full = {True: 0.0, False: 0.0}
        low = {True: 0.0, False: 0.0}
        for linear in self.targets(shape, values):
            side = reads_encoder(linear)
            full[side] += linear.runs * (4 * numbers + mask * linear.in_features)
            low[side] += linear.runs * (2 * numbers + mask * linear.in_features)
        return MemoryTraits((full[True], full[False]), kept_under_autocast=(low[True], low[False]))

    def variant(self, shape: ModelShape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The compression."""
        from peft import VeloraConfig

        return {"velora_config": VeloraConfig(num_groups=int(values["num_groups"]))}


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer VeLoRA."""
    return (Velora,)
