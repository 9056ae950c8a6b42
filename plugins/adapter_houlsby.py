"""Houlsby adapters: a small network after the attention and after the feed-forward part of every block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Houlsby(AdapterMethod):
    """Sequential bottleneck adapters after both sub-layers (and after cross-attention)."""

    name = "adapter_houlsby"
    title = "Adapter (Houlsby)"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Puts small bottleneck networks after attention and feed-forward parts: strong on understanding tasks."
    aliases = ("adapter", "adapters", "adapter^s", "adapter_s", "sequential_adapter", "houlsby", "bottleneck")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN; attention",
        derived=False,
    )
    # Houlsby et al. 2019, section 3: widths of 8, 64 and 256
    references = (Reference("Parameter-Efficient Transfer Learning for NLP", "https://arxiv.org/abs/1902.00751", 2019),)
    rate_from = "ours, between the 3e-4 and 3e-3 that Houlsby et al. 2019 search (section 3.2)"
    formula = "(N_att + N_ffn)·(2·d·b + b + d)"
    thesis = (
        "1.2.2",
        "2.2.7",
        "5.3",
        "T2.3",
        "T2.4",
        "T2.6",
        "T2.7",
        "T2.8",
        "T2.9",
        "T2.10",
        "T2.11",
        "T2.12",
        "T2.13",
    )
    limits = (
        "Cannot be merged: every call of the model pays for the adapters.",
        "Less faithful than low-rank updates where text is generated (thesis 5.3).",
    )
    simplified = ("Layer normalisations stay frozen; the paper trains them too.",)
    acts_on = frozenset({"attention", "ffn"})

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation (GELU, as in the authors' code) and rate."""
        return (self.bottleneck_setting(), self.activation_setting("gelu"), self.rate_setting())

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BottleneckConfig."""
        from peftselect import BottleneckConfig

        return BottleneckConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer Houlsby adapters."""
    return (Houlsby,)
