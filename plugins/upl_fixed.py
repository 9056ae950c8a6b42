"""Fixed unified prompt learning: a task prefix and an instance prefix, mixed by a constant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftselect import Hyperparameter, InstancePrefixMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect import ModelShape


class FixedUpl(InstancePrefixMethod):
    """A constant mix of both prefixes."""

    name = "upl_fixed"
    title = "Fixed-UPL"
    summary = "Mixes a prefix of the task with one made from the input, by a constant share: for few-shot tasks."
    aliases = ("fixed_upl",)
    structure = replace(InstancePrefixMethod.structure, intra_connectivity="dense: generator, fixed mix")
    references = (
        Reference(
            "Unified Prompt Learning Makes Pre-trained Language Models Better Few-shot Learners",
            "https://ieeexplore.ieee.org/document/10095738",
            2023,
        ),
    )
    rate_from = "ours: up to a width of 1,024 that of prefix tuning, beyond the generator's; the paper's is not public"
    thesis = ("T2.8",)
    simplified = (
        "The instance is the mean of its frozen input embeddings; the papers also read the encoder's own output.",
        "Trained under the task's usual head; the paper fills a template by a masked language model.",
    )
    mix = "fixed"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of the generator, and the share of its prefix."""
        share = Hyperparameter("share", 0.5, "float", "share of the instance's prefix", 0, 1, search=(0.3, 0.5, 0.7))
        return (*super().hyperparameters(shape), share)


@hookimpl
def register_methods() -> tuple[type[InstancePrefixMethod], ...]:
    """Offer Fixed-UPL."""
    return (FixedUpl,)
