"""AdaMSS: rank-one updates in subspaces found by clustering each weight's rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Adamss(UpdateMethod):
    """Outputs are clustered by their singular coordinates; each cluster learns an update of rank one."""

    name = "adamss"
    title = "AdaMSS"
    summary = "Clusters the outputs of each layer and gives every cluster a small update in the leading directions."
    aliases = ("adaptive_multi_subspace",)
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: linear MLPs of clusters")
    # values of the PEFT project's run
    references = (
        Reference(
            "AdaMSS: Adaptive Multi-Subspace Approach for Parameter-Efficient Fine-Tuning",
            "https://openreview.net/forum?id=8ZdWmpYxT0",
            2025,
        ),
    )
    rate_from = (
        "Zheng et al. 2025, table 19: 5e-4 to 1e-2 for RoBERTa, here the largest, for short runs; for models wider "
        "than 1,024 the PEFT project's run"
    )
    formula = "Σ (K·r + out) over the target layers, K = num_subspaces"
    tuner = "AdamssConfig"
    rate = 1e-4
    narrow_rate = 1e-2
    simplified = ("All subspaces are trained to the end, where the paper prunes them while training.",)
    limits = (
        "Starts with a decomposition and a clustering of every target's weight.",
        "Loading repeats both, so that the adapter needs the very weights it was made from.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Directions, and clusters."""
        words = self.target_setting(shape).default
        linears = self.targets(shape, {"target_modules": words})
        narrow = min(min(item.in_features, item.out_features) for item in linears)
        return (
            Hyperparameter("r", min(100, narrow // 2), "int", "leading directions kept", 1, 4096, log=True),
            Hyperparameter("num_subspaces", max(1, min(32, narrow // 8)), "int", "clusters of outputs", 1, 1024),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There are no more directions than a weight has."""
        if why := super().unsupported(shape, values):
            return why
        narrow = min(min(x.in_features, x.out_features) for x in self.targets(shape, values))
        return f"r={values['r']} is more than the {narrow} directions of a target" if values["r"] > narrow else None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A direction for each cluster, and how far each output goes along its cluster's."""
        return int(values["num_subspaces"]) * int(values["r"]) + linear.out_features

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The leading directions."""
        return int(values["r"]) * (linear.in_features + linear.bias)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What the clusters' updates read, and the directions in use."""
        numbers = int(values["r"]) + int(values["num_subspaces"])
        held = 4.0 * self.layer_untrained(linear, values)
        return Kept(a_position=float(width * numbers), a_step=held / 2 if width == 2 else 0.0, held=held)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer AdaMSS."""
    return (Adamss,)
