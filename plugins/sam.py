"""SAM, the second-order approximation method (not sharpness-aware minimisation): a mask from summed gradients."""

from __future__ import annotations

from peftselect import MaskMethod, Reference, hookimpl


class Sam(MaskMethod):
    """The weights of each tensor whose gradients, summed over the data, are largest."""

    name = "sam"
    title = "SAM (second-order approximation)"
    summary = "Trains the weights that promise the largest fall of the loss, by the gradients of the first steps."
    aliases = ("second_order_approximation_method", "second_order_approximation")
    # Fu et al. 2022 (published script): a share of 0.005, gradients of 600 steps
    references = (
        Reference("On the Effectiveness of Parameter-Efficient Fine-Tuning", "https://arxiv.org/abs/2211.15583", 2022),
    )
    rate_from = "ours; the script of Fu et al. 2022 has 1e-4 over 20,000 steps, and short runs want more"
    thesis = ("T2.9", "T2.10")
    limits = (
        *MaskMethod.limits,
        "It has nothing to do with sharpness-aware minimisation, which bears the same three letters.",
    )
    simplified = (
        "Weights are ranked by their summed gradients, as in the published code; the theory divides each squared one by"
        " its second derivative.",
        "The head is trained from the first step on, while gradients are still summed.",
    )
    mask = "gradient"


@hookimpl
def register_methods() -> tuple[type[MaskMethod], ...]:
    """Offer SAM."""
    return (Sam,)
