"""LST: a small transformer beside the frozen one, fed by its blocks, so that no gradient enters the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LadderMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class LadderSideTuning(LadderMethod):
    """A ladder: side blocks, each reading a block of the base over a trained gate."""

    name = "lst"
    title = "Ladder side-tuning (LST)"
    summary = "Trains a small transformer that reads the frozen one's blocks: no gradient enters the base."
    aliases = ("ladder_side_tuning", "ladder-side-tuning")
    # Sung et al. 2022, section 4 and appendix: reduction 8 for T5-base
    references = (
        Reference(
            "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning",
            "https://arxiv.org/abs/2206.06522",
            2022,
        ),
    )
    rate_from = "the authors' script for T5-base: 3e-3"
    formula = (
        "Σ over blocks of (d·s + s + 1 + attention, cross-attention and FFN of width s), and d·s + d; s = d/reduction"
    )
    thesis = ("2.3",)
    limits = (
        "Side blocks keep no keys and values: generation goes without the cache.",
        "Cannot be merged: every call of the model pays for the side network.",
    )
    simplified = (
        "Side blocks start pruned by the magnitude of weights; the paper's default is Fisher information on data.",
        "Side blocks have no biases and no position encodings, which the base's states carry; norms come first.",
        "By default its result is added to the base's last states, so that training starts there; merge=replace is the"
        " paper's.",
        "Where the base fuses queries, keys and values into one layer, side attention starts at random.",
        "Every block has its side block; the paper may drop some.",
    )
    starts_as_base = True

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How much narrower it is, how it comes back, and the rate."""
        return (
            self.reduction_setting(),
            Hyperparameter(
                "merge", "add", "str", "how its result meets the base's last states", choices=("add", "replace")
            ),
            Hyperparameter("learning_rate", 3e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def merging(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Added, or as the paper has it."""
        return {"merge": values["merge"]}


@hookimpl
def register_methods() -> tuple[type[LadderMethod], ...]:
    """Offer LST."""
    return (LadderSideTuning,)
