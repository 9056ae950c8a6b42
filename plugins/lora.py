"""LoRA: a trained low-rank update beside frozen linear layers."""

from __future__ import annotations

from peftselect import ALL_HEADS, LowRankMethod, Reference, Structure, hookimpl


class Lora(LowRankMethod):
    """Low-rank adaptation of query and value (or other) projections."""

    name = "lora"
    title = "LoRA"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Learns a low-rank update of chosen linear layers; merges into them without a trace."
    family = "reparameterized"
    aliases = ("low_rank_adaptation",)
    structure = Structure(
        intra_connectivity="dense: linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="attention: queries/values",
        derived=False,
    )
    # scale, rank and dropout as in thesis 4.1
    references = (
        Reference("LoRA: Low-Rank Adaptation of Large Language Models", "https://arxiv.org/abs/2106.09685", 2021),
        Reference("A Rank Stabilization Scaling Factor for LoRA", "https://arxiv.org/abs/2312.03732", 2023),
        Reference("LoRA Without Regret", "https://thinkingmachines.ai/blog/lora/", 2025),
    )
    rate_from = (
        "Schulman et al. 2025: 5e-4 at a width of 2,000, more for narrower models; Hu et al. 2021 (appendix D) have "
        "2e-4 (GPT-3) to 5e-4 (RoBERTa) over tens of epochs"
    )
    thesis = (
        "1.2.2",
        "2.2.4",
        "4.1",
        "4.2",
        "4.3",
        "5.3",
        "T2.3",
        "T2.4",
        "T2.5",
        "T2.6",
        "T2.7",
        "T2.8",
        "T2.11",
        "T2.12",
        "T2.13",
    )
    formula = "Σ r·(in + out) over the target layers"


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer LoRA."""
    return (Lora,)
