"""PSOFT: an orthogonal rotation inside the leading singular directions of each weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Psoft(UpdateMethod):
    """``W + B (diag(b) R diag(a) − I) A``: B A is the principal part of W, R a trained rotation of rank r."""

    name = "psoft"
    title = "PSOFT"
    summary = "Rotates the leading singular directions of each weight among themselves, and scales them."
    structure = replace(UpdateMethod.structure, intra_connectivity="dense: orthogonal matrix within a fixed linear MLP")
    # Wu et al. 2025: scale as the rank, ranks of 32 to 128 for simple tasks and of 64 to 256 for hard ones; the PEFT
    # project's run has 256
    references = (
        Reference(
            "Efficient Orthogonal Fine-Tuning with Principal Subspace Adaptation",
            "https://arxiv.org/abs/2505.11235",
            2025,
        ),
    )
    rate_from = "ours, in the middle of the 1e-4 to 5e-3 of Wu et al. 2025; the PEFT project's run has 1e-4"
    formula = "Σ (r·(r − 1)/2 + 2·r) over the target layers"
    tuner = "PsoftConfig"
    rate = 1e-3
    limits = (
        "Starts with a decomposition of every target's weight.",
        "Loading repeats the decomposition, so that the adapter needs the very weights it was made from.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, and how it is scaled."""
        words = self.target_setting(shape).default
        narrow = min(min(x.in_features, x.out_features) for x in self.targets(shape, {"target_modules": words}))
        rank = min(64, narrow // 2)
        return (
            Hyperparameter(
                "r", rank, "int", "singular directions turned", 2, 4096, search=(32, 64, 128, 256), log=True
            ),
            Hyperparameter("psoft_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There are no more directions than a weight has."""
        if why := super().unsupported(shape, values):
            return why
        narrow = min(min(x.in_features, x.out_features) for x in self.targets(shape, values))
        return f"r={values['r']} is more than the {narrow} directions of a target" if values["r"] > narrow else None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The upper triangle of the rotation, and both scales."""
        rank = int(values["r"])
        return rank * (rank - 1) // 2 + 2 * rank

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What the rotation reads, and how it is solved for; the principal part is held."""
        rank = int(values["r"])
        held = 4.0 * rank * (linear.in_features + linear.out_features)
        return Kept(a_position=4.0 * rank, a_step=20.0 * rank**2, held=held)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: Any) -> Any:
        """The tuner's, whose scale cancels out where it equals the rank."""
        return super().peft_config(shape, {**values, "psoft_alpha": int(values["r"])}, context)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer PSOFT."""
    return (Psoft,)
