"""OSF: trains the lesser singular directions of each weight, and leaves the leading ones alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Osf(UpdateMethod):
    """``U_high S_high V_high`` stays, ``U_low S_low V_low`` is trained with gradients that keep away from it."""

    name = "osf"
    title = "OSF"
    summary = "Trains the lesser singular directions of each weight, orthogonal to those that hold what it knows."
    aliases = ("orthogonal_subspace_finetuning",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: linear (SVD)",
        input_type="weights",
        insertion_form="in place",
        integration_form="direct addition",
    )
    # half of the directions as in peft
    references = (
        Reference(
            "Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning",
            "https://arxiv.org/abs/2504.07097",
            2025,
        ),
    )
    rate_from = "the PEFT project's configuration, within the 1e-5 to 1e-4 of its guide"
    formula = "Σ (m − k)·(in + out + 1) over the target layers, m = min(in, out), k = effective_rank·m"
    tuner = "OSFConfig"
    rate = 5e-5
    multi_adapter = False
    limits = (
        "Trains about as many numbers as the targets have: it is made for learning one task after another.",
        "Starts with a decomposition of every target's weight.",
        "Loading repeats it, so that the adapter needs the very weights it was made from.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """What is left alone."""
        help_ = "share of the singular directions left alone"
        return (Hyperparameter("effective_rank", 0.5, "float", help_, 0.01, 0.99, search=(0.5, 0.75, 0.9)),)

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """That of the lesser directions, which differs by layer."""
        return None

    def _directions(self, linear: LinearModule, values: Mapping[str, Any]) -> tuple[int, int]:
        """Directions left alone, and trained."""
        whole = min(linear.in_features, linear.out_features)
        kept = max(1, int(whole * float(values["effective_rank"])))
        return kept, whole - kept

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The lesser directions of both sides, and their singular values."""
        return self._directions(linear, values)[1] * (linear.in_features + linear.out_features + 1)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, what both sides' difference reads, and the two sides, before and now."""
        high, low = self._directions(linear, values)
        inside, outside = linear.in_features, linear.out_features
        sides = low * (inside + outside)
        # where the trained directions started, and the leading ones of the longer side
        held = float(width * (sides + (high * max(inside, outside) if inside != outside else 0)))
        return Kept("float32", a_position=8.0 * low, a_step=4.0 * (2 * sides + low * outside), held=held)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer OSF."""
    return (Osf,)
