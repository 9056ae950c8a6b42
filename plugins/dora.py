"""DoRA: a low-rank update of the direction of each weight vector, and its length trained by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import LowRankMethod, MemoryTraits, Reference, hookimpl, reads_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ModelShape


class Dora(LowRankMethod):
    """Weight-decomposed low-rank adaptation: ``m (W + s B A) / |W + s B A|`` for each row of a weight."""

    name = "dora"
    title = "DoRA"
    summary = "LoRA on the direction of each weight vector, with its length trained beside it: better at low ranks."
    # rank halved at equal quality: Liu et al. 2024, appendix A
    references = (Reference("DoRA: Weight-Decomposed Low-Rank Adaptation", "https://arxiv.org/abs/2402.09353", 2024),)
    rate_from = "LoRA's, at or below which Liu et al. 2024 (appendix A) train"
    formula = "Σ (r·(in + out) + out) over the target layers"
    records_like = "lora"
    judged = False
    lora_options: ClassVar[Mapping[str, Any]] = {"use_dora": True}
    limits = ("Slower in training than LoRA: the length of every updated weight vector is computed in each step.",)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of LoRA, and a length for each output."""
        lengths = sum(linear.count * linear.out_features for linear in self.targets(shape, values))
        return super().trainable_parameters(shape, values) + lengths

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Beside LoRA's, what the lengths multiply: the base's output and the update's, in float32."""
        plain = super().memory(shape, values, compute_bytes)
        kept = {True: 0.0, False: 0.0}
        for linear in self.targets(shape, values):
            kept[reads_encoder(linear)] += 8.0 * linear.runs * linear.out_features
        encoder, decoder = plain.kept_bytes_per_token
        low = plain.kept_under_autocast or plain.kept_bytes_per_token
        return MemoryTraits(
            (encoder + kept[True], decoder + kept[False]),
            kept_under_autocast=(low[0] + kept[True], low[1] + kept[False]),
        )


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer DoRA."""
    return (Dora,)
