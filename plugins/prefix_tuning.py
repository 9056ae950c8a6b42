"""Prefix tuning: trained keys and values before every attention of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import PrefixMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ApplyContext, ModelShape


class PrefixTuning(PrefixMethod):
    """Prefixes at all attentions: in an encoder-decoder those of the encoder, the decoder and between the two."""

    name = "prefix_tuning"
    title = "Prefix tuning"
    summary = "Puts trained keys and values before every attention; leaves every weight as it is."
    aliases = ("prefix", "full_prefix_tuning", "p_tuning_v2", "deep_prompt_tuning")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="gated addition",
        workspace="embedding layer; attention: keys/values",
        derived=False,
    )
    # Li and Liang 2021 (table 8): prefixes of 10 (tables) to 200 (summaries) made by an MLP; He et al. 2022 (appendix
    # A) reach every attention of an encoder-decoder
    references = (
        Reference(
            "Prefix-Tuning: Optimizing Continuous Prompts for Generation", "https://arxiv.org/abs/2101.00190", 2021
        ),
        Reference(
            "Towards a Unified View of Parameter-Efficient Transfer Learning", "https://arxiv.org/abs/2110.04366", 2022
        ),
    )
    rate_from = (
        "ours, for bare prefixes and for those made by an MLP; Li and Liang 2021 (table 8) train the MLP at 5e-5 for "
        "many epochs"
    )
    formula = "N_att·2·n·g, and its MLP while it trains"
    thesis = ("1.2.2", "2.2.6", "5.3", "T2.3", "T2.4", "T2.7", "T2.8", "T2.11", "T2.12")
    limits = (
        "Cannot be merged: every attention reads the longer keys and values.",
        "Needs an architecture whose attention transformers calls through its registry.",
    )
    simplified = ("The prefix is trained directly; prefix_projection=true makes it by the paper's MLP.",)

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """A smaller rate for the MLP, all of whose weights every row shares."""
        return 1e-3 if values["prefix_projection"] else float(values["learning_rate"])

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our PrefixConfig."""
        from peftselect import PrefixConfig

        return PrefixConfig(**self.prefix_arguments(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[PrefixMethod], ...]:
    """Offer prefix tuning."""
    return (PrefixTuning,)
