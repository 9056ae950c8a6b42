"""Tiny-attention adapters: a second self-attention of heads a few numbers wide after every attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, attention_pattern, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class TinyAttention(AdapterMethod):
    """Adapters in which positions look at one another."""

    name = "tiny_attention"
    title = "Tiny-attention adapter"
    summary = "A second attention with heads of one number after every attention: context for a handful of parameters."
    aliases = ("tiny_attention_adapter", "tiny_attn_adapter", "tinyattention")
    structure = Structure(
        intra_connectivity="dense: self-attention",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="attention",
        derived=False,
    )
    # Zhao et al. 2022, section 4: one or a few heads of size one
    references = (
        Reference(
            "Tiny-Attention Adapter: Contexts Are More Important Than the Number of Parameters",
            "https://arxiv.org/abs/2211.01979",
            2022,
        ),
    )
    rate_from = "Zhao et al. 2022, section 4: the largest of 1e-4 to 5e-3, for short runs"
    formula = "N_att·(3·(d + 1)·k + k·d + d), k = heads·head_dim"
    thesis = ("2.2.8", "5.3", "T2.3", "T2.4")
    limits = (
        "Decoding with the key/value cache would show it one position at a time: generation goes without the cache.",
        "Cannot be merged; time grows with the square of the length.",
    )
    simplified = ("Several heads stay several; the paper may average them into one after training.",)
    acts_on = frozenset({"attention"})
    roles = ("attention_output",)
    decodes_with_cache = False
    default_learning_rate = 5e-3

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Heads, their size, and the rate."""
        return (
            Hyperparameter("heads", 4, "int", "number of heads", 1, 256, search=(1, 4, 8)),
            Hyperparameter("head_dim", 1, "int", "size of a head", 1, 256),
            self.rate_setting(),
        )

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """3 (d + 1) k + k d + d for k numbers in all heads."""
        width, inner = site.out_features, int(values["heads"]) * int(values["head_dim"])
        return 3 * (width + 1) * inner + inner * width + width

    def kept_numbers(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """What the projections read, queries, keys, values, and what is attended twice (as it comes and laid out)."""
        return site.out_features + 5 * int(values["heads"]) * int(values["head_dim"])

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our TinyAttentionConfig; decoders must not look ahead."""
        from peftselect import TinyAttentionConfig

        causal = {"encoder": None, "decoder": ".*", "encoder-decoder": r"(.*\.)?decoder\..*"}
        return TinyAttentionConfig(
            heads=int(values["heads"]),
            head_dim=int(values["head_dim"]),
            attention_modules=attention_pattern(shape),
            causal_modules=causal[shape.architecture],
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer tiny-attention adapters."""
    return (TinyAttention,)
