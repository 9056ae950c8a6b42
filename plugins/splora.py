"""SPLoRA: a low-rank update under a mask of feed-forward channels, which are cut out in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ChannelMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ApplyContext, ModelShape


class SpLora(ChannelMethod):
    """Structured pruning low-rank adapters: channels of ``W + s B A`` go by their size, and what is left learns on."""

    name = "splora"
    title = "SPLoRA"
    summary = "LoRA on feed-forward layers whose channels are pruned as it trains; merging cuts them out of the model."
    aliases = ("structured_pruning_adapters", "structured_pruning_low_rank_adapter")
    structure = Structure(
        intra_connectivity="dense: linear MLP, channels pruned",
        inter_connectivity="fixed: structured sparse",
        parameters_adapted="reparameterization and pruning",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="FFN",
    )
    # Hedegaard et al. 2022, sections 3.2 and 4: ranks 8, 16, 32; channels by the weights after adaptation among others
    references = (Reference("Structured Pruning Adapters", "https://arxiv.org/abs/2211.10155", 2022),)
    thesis = ("2.3",)
    formula = "Σ r·(in + out) over the feed-forward layers"
    acts_on = frozenset({"ffn"})
    records_like = "lora"
    judged = False
    score = "magnitude"
    limits = (
        "While it trains, pruned channels are hidden and not yet gone: memory and time are saved after merging.",
        "Where the configuration has no single feed-forward width, merging leaves zeros in place of pruned channels.",
    )
    simplified = (
        "Every layer loses the same share, so that a configuration can say so; the paper ranks over all layers.",
    )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ChannelConfig."""
        from peftselect import ChannelConfig

        return ChannelConfig(**self.settings(shape, values, context))

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """Prunes in training."""
        from peftselect import PruneChannels

        return [PruneChannels(max(context.total_steps, 1))]


@hookimpl
def register_methods() -> tuple[type[ChannelMethod], ...]:
    """Offer SPLoRA."""
    return (SpLora,)
