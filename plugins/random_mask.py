"""Random mask: a random share of the weights is trained."""

from __future__ import annotations

from peftselect import MaskMethod, Reference, hookimpl


class RandomMask(MaskMethod):
    """The same share of each tensor, drawn once."""

    name = "random_mask"
    title = "Random mask"
    summary = "Trains a random share of the weights: the baseline of sparse tuning, stabler than training all of them."
    aliases = ("random",)
    # Fu et al. 2022 (published script): a share of 0.005
    references = (
        Reference("On the Effectiveness of Parameter-Efficient Fine-Tuning", "https://arxiv.org/abs/2211.15583", 2022),
        Reference("Training Neural Networks with Fixed Sparse Masks", "https://arxiv.org/abs/2111.09839", 2021),
    )
    rate_from = "ours; the script of Fu et al. 2022 has 1e-4 over 20,000 steps, and short runs want more"
    thesis = ("T2.9", "T2.10")


@hookimpl
def register_methods() -> tuple[type[MaskMethod], ...]:
    """Offer random masks."""
    return (RandomMask,)
