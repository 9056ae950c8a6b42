"""Diff pruning: a change of all weights behind gates that a penalty closes, of which few are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Reference, WholeChangeMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class DiffPruning(WholeChangeMethod):
    """Hard concrete gates, the L0 penalty on them, then the largest of what came through."""

    name = "diff_pruning"
    title = "Diff pruning"
    summary = "Learns which weights to change, by gates under a penalty, and trains on the few largest changes."
    aliases = ("diffpruning",)
    # Guo et al. 2021, section 4, and the published code: half a percent, a penalty of 1.25e-7, gates at a rate of 0.1
    references = (
        Reference("Parameter-Efficient Transfer Learning with Diff Pruning", "https://arxiv.org/abs/2012.07463", 2020),
    )
    thesis = ("T2.9", "T2.10")
    formula = "2·P while training, a change and a gate for every parameter; ρ·P (density) are kept"
    limits = (
        *WholeChangeMethod.limits,
        "Brings its own AdamW: the recipe's choice of an optimizer does not reach it.",
    )
    simplified = (
        "Each weight has a gate of its own; the paper's structured form has a second one for each tensor.",
        "The last third of the steps trains what was kept; the paper adds that as a run of its own.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The share that changes, the penalty, the gates' rate and time, and the rate."""
        return (
            self.density_setting(),
            Hyperparameter(
                "penalty", 1.25e-7, "float", "weight of the expected number of open gates in the loss", 0, 1,
                search=(1.25e-8, 1.25e-7, 1.25e-6),
            ),
            Hyperparameter("gate_learning_rate", 0.1, "float", "peak learning rate of the gates", 1e-5, 10, log=True),
            Hyperparameter("gated_share", 0.67, "float", "share of the steps with gates", 0.01, 0.99),
            self.rate_setting(shape),
        )  # fmt: skip

    def search_steps(self, values: Mapping[str, Any], total_steps: int) -> int:
        """Those with gates, which leave a step without."""
        return min(max(int(float(values["gated_share"]) * total_steps), 1), total_steps - 1)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A change and a gate for each weight, and the head."""
        return 2 * self.numbers(shape, values) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Every draw of the gates is kept as well."""
        traits = super().memory(shape, values, compute_bytes)
        drawn = 4 * self.numbers(shape, values)
        return replace(
            traits, kept_bytes_per_step=traits.kept_bytes_per_step + drawn, passing_bytes=2 * traits.passing_bytes
        )

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """Gated."""
        return {"kind": "gated", "penalty": values["penalty"]}

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any:
        """AdamW with a rate for the gates."""
        from torch.optim import AdamW

        trained = [(name, item) for name, item in model.named_parameters() if item.requires_grad]
        gates = [item for name, item in trained if ".gate_" in name]
        others = [item for name, item in trained if ".gate_" not in name]
        groups: list[dict[str, Any]] = [
            {"params": others},
            {"params": gates, "lr": float(values["gate_learning_rate"])},
        ]
        return AdamW(groups, lr=float(values["learning_rate"]), weight_decay=0.0, foreach=False)


@hookimpl
def register_methods() -> tuple[type[WholeChangeMethod], ...]:
    """Offer diff pruning."""
    return (DiffPruning,)
