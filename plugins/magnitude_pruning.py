"""Magnitude pruning as a mask: the weights that are largest are trained."""

from __future__ import annotations

from peftselect import MaskMethod, Reference, hookimpl


class MagnitudePruning(MaskMethod):
    """The largest weights of each tensor."""

    name = "magnitude_pruning"
    title = "Magnitude pruning (MagPruning)"
    summary = "Trains the largest weights of each tensor, those that pruning by size would leave."
    aliases = ("magpruning", "mag_pruning")
    # Fu et al. 2022 (published script): a share of 0.005
    references = (
        Reference("On the Effectiveness of Parameter-Efficient Fine-Tuning", "https://arxiv.org/abs/2211.15583", 2022),
        Reference(
            "Learning both Weights and Connections for Efficient Neural Networks", "https://arxiv.org/abs/1506.02626",
            2015,
        ),
        Reference("Block Pruning For Faster Transformers", "https://arxiv.org/abs/2109.04838", 2021),
    )  # fmt: skip
    rate_from = "ours; the script of Fu et al. 2022 has 1e-4 over 20,000 steps, and short runs want more"
    thesis = ("T2.9",)
    simplified = (
        "Sizes are those of the pretrained weights; the published code trains all of them for some steps first.",
    )
    mask = "magnitude"


@hookimpl
def register_methods() -> tuple[type[MaskMethod], ...]:
    """Offer magnitude pruning."""
    return (MagnitudePruning,)
