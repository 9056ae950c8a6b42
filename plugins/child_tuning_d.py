"""Child-Tuning_D: the weights with the most Fisher information on the task are trained, the others stay."""

from __future__ import annotations

from peftselect import MaskMethod, Reference, hookimpl


class ChildTuningD(MaskMethod):
    """A child network chosen by the squares of the gradients, among all tensors at once."""

    name = "child_tuning_d"
    title = "Child-Tuning_D"
    summary = "Trains the share of the weights that carries the most Fisher information on the task."
    aliases = ("child_tuning",)
    # Xu et al. 2021, appendix: shares of 0.1, 0.2 and 0.3
    references = (
        Reference(
            "Raise a Child in Large Language Model: Towards Effective and Generalizable Fine-tuning",
            "https://arxiv.org/abs/2109.05687",
            2021,
        ),
    )
    rate_from = "as for full fine-tuning, where Xu et al. 2021 have it too"
    thesis = ("T2.7",)
    simplified = (
        "Fisher information is summed over the first steps, in which the head is trained already; the paper goes"
        " through the training rows once before.",
        "Squares are those of a micro-batch's mean gradient, as in the published code.",
        "Embeddings are masked like all else; the published code masks the blocks and trains the embeddings in full.",
    )
    mask = "fisher"
    everywhere = True
    default_density = 0.3
    densities = (0.1, 0.2, 0.3)
    default_learning_rate = None


@hookimpl
def register_methods() -> tuple[type[MaskMethod], ...]:
    """Offer Child-Tuning_D."""
    return (ChildTuningD,)
