"""rsLoRA: LoRA whose update is divided by the root of its rank."""

from __future__ import annotations

from peftselect import LowRankMethod, Reference, hookimpl


class RsLora(LowRankMethod):
    """Rank-stabilised LoRA: the scale alpha / sqrt(r) keeps gradients alike at every rank."""

    name = "rslora"
    title = "rsLoRA"
    summary = "LoRA scaled by the root of its rank, so that high ranks learn as fast as low ones."
    aliases = ("rank_stabilized_lora",)
    references = (Reference("A Rank Stabilization Scaling Factor for LoRA", "https://arxiv.org/abs/2312.03732", 2023),)
    rate_from = "LoRA's, held for every rank and scale"
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    root_scale = True


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer rsLoRA."""
    return (RsLora,)
