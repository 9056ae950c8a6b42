"""Sparse fine-tuning by lottery tickets: a first pass trains all weights, a second those that it moved most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, WholeChangeMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class SparseFinetuning(WholeChangeMethod):
    """LT-SFT: the mask of a first pass, and a second one from the base under it."""

    name = "sparse_finetuning"
    title = "Sparse fine-tuning (LT-SFT)"
    summary = "Trains all weights, keeps the places of those that moved most, and trains these again from the base."
    aliases = ("sparse_fine_tuning", "lt_sft", "lottery_ticket_sparse_fine_tuning")
    # Ansell et al. 2022, section 4: 14.2 of 178 million weights, as many epochs in either pass
    references = (
        Reference("Composable Sparse Fine-Tuning for Cross-Lingual Transfer", "https://arxiv.org/abs/2110.07560", 2021),
    )
    rate_from = "as for full fine-tuning; Ansell et al. 2022 have 2e-5 to 5e-5 by task"
    thesis = ("1.2.2",)
    simplified = (
        "Both passes share the steps of one run; the paper trains the full length twice.",
        "The second pass goes on with the schedule of the learning rate; the paper begins it anew.",
        "Normalisations may be chosen like all else, and nothing but the choice holds the first pass to the base.",
    )
    default_density = 0.08
    densities = (0.02, 0.08, 0.2)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The share that changes, the length of the first pass, and the rate."""
        first = Hyperparameter("first_pass", 0.5, "float", "share of the steps that train all weights", 0.01, 0.99)
        return (self.density_setting(), first, self.rate_setting(shape))

    def search_steps(self, values: Mapping[str, Any], total_steps: int) -> int:
        """The first pass, which leaves a step for the second."""
        return min(max(int(float(values["first_pass"]) * total_steps), 1), total_steps - 1)

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """Two passes."""
        return {"kind": "two_pass"}


@hookimpl
def register_methods() -> tuple[type[WholeChangeMethod], ...]:
    """Offer sparse fine-tuning."""
    return (SparseFinetuning,)
