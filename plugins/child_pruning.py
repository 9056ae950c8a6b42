"""ChildPruning: all weights are trained, and those that moved least are put back to the base now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, WholeChangeMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ChildPruning(WholeChangeMethod):
    """Training, projected onto the largest changes every so often."""

    name = "child_pruning"
    title = "ChildPruning"
    summary = "Trains all weights and puts back, every few steps, all but the few that have moved most."
    # Fu et al. 2022 (published script): a share of 0.005
    references = (
        Reference("On the Effectiveness of Parameter-Efficient Fine-Tuning", "https://arxiv.org/abs/2211.15583", 2022),
        Reference(
            "Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic Sparse Reparameterization",
            "https://arxiv.org/abs/1902.05967",
            2019,
        ),
    )
    thesis = ("T2.9", "T2.10")
    simplified = (
        "The largest changes of all tensors are kept; dynamic sparse reparameterization deals out places tensor by"
        " tensor, by a threshold.",
        "In between, the optimizer's moments go on as they are.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The share that changes, how often it is cut down to that, and the rate."""
        often = Hyperparameter("prunings", 10, "int", "how often in a run changes are put back", 1, 10_000)
        return (self.density_setting(), often, self.rate_setting(shape))

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """Pruned every so many steps."""
        return {"kind": "pruned", "every": max(context.total_steps // int(values["prunings"]), 1)}


@hookimpl
def register_methods() -> tuple[type[WholeChangeMethod], ...]:
    """Offer ChildPruning."""
    return (ChildPruning,)
