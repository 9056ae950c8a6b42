"""QLoRA: LoRA on every linear layer of a base that is held in 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, LowRankMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ModelShape


class QLora(LowRankMethod):
    """LoRA over an NF4 base (bitsandbytes, with double quantisation)."""

    name = "qlora"
    title = "QLoRA"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "LoRA on all linear layers of a base stored in 4 bits: the least memory for a large model."
    family = "reparameterized"
    aliases = ("quantized_lora", "nf4", "double_quantization", "paged_optimizers")
    structure = Structure(
        intra_connectivity="dense: linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization over a quantised base",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all linear layers",
        integration_form="scaled addition",
        workspace="attention; FFN",
    )
    # Dettmers et al. 2023, table 9: dropout 0.1, all linear layers; the rank made no difference
    references = (Reference("QLoRA: Efficient Finetuning of Quantized LLMs", "https://arxiv.org/abs/2305.14314", 2023),)
    rate_from = "by width from Dettmers et al. 2023, table 9: 2e-4 for 7B and 13B (4,096 and 5,120 wide)"
    thesis = ("2.3",)
    formula = "Σ r·(in + out) over the target layers"
    acts_on = frozenset({"attention", "ffn"})
    default_targets = "all-linear"
    base_learning_rate = 3.5e-4
    # merging into 4-bit weights rounds them again, and merging into the full base undoes what was tuned around
    mergeable = False
    quantized_base = "required"
    adds_inference_cost = True
    records_like = "lora"

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The adapter stays beside the base."""
        return self.saved_parameters(shape, values)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer QLoRA."""
    return (QLora,)
