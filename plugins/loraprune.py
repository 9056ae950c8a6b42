"""LoRAPrune: heads and channels are pruned by what the gradients of the low-rank factors say of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ChannelMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ApplyContext, ModelShape


class LoraPrune(ChannelMethod):
    """LoRA on all layers, with heads and channels pruned by ``|(g_B A + B g_A - g_B g_A) ∘ (W + s B A)|``."""

    name = "loraprune"
    title = "LoRAPrune"
    summary = "LoRA that prunes heads and feed-forward channels as it trains, by the gradients of its own factors."
    aliases = ("lorapruning", "lora_pruning")
    structure = Structure(
        intra_connectivity="dense: linear MLP, channels pruned",
        inter_connectivity="fixed: structured sparse",
        parameters_adapted="reparameterization and pruning",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="attention; FFN",
    )
    # Zhang et al. 2023, section 4.1: rank 8 (here LoRA's default), half of the parameters pruned, cubic schedule
    references = (
        Reference(
            "LoRAPrune: Structured Pruning Meets Low-Rank Parameter-Efficient Fine-Tuning",
            "https://arxiv.org/abs/2305.18403",
            2023,
        ),
    )
    rate_from = "LoRA's; the authors' script has 1e-4 for Llama-3.1-8B at rank 8"
    thesis = ("2.3",)
    formula = "Σ r·(in + out) over all linear layers"
    acts_on = frozenset({"attention", "ffn"})
    records_like = "lora"
    judged = False
    readers = ("ffn_out", "attention_output")
    limits = (
        "While it trains, what is pruned is hidden and not yet gone: memory and time are saved after merging.",
        "Merging cuts feed-forward channels out; of pruned heads the weights that read them become zero, for"
        " configurations cannot say that single heads are gone.",
        "Heads that share keys and values go together; where these are one for all heads, none can.",
    )

    simplified = (
        "Every block loses the same share; the authors' code leaves the first tenth of the blocks and the last one"
        " whole, and prunes every tenth step, here every one.",
    )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ChannelConfig."""
        from peftselect import ChannelConfig

        return ChannelConfig(**self.settings(shape, values, context))

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """Judges and prunes in training."""
        from peftselect import PruneChannels

        return [PruneChannels(max(context.total_steps, 1))]


@hookimpl
def register_methods() -> tuple[type[ChannelMethod], ...]:
    """Offer LoRAPrune."""
    return (LoraPrune,)
