"""FRoD: trains the diagonal and a few other entries of each weight in a basis that layers of one kind share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Frod(UpdateMethod):
    """``U (Λ + S) Vᵀ``: V is shared by layers of a kind, U Λ Vᵀ is the weight; Λ and the sparse S are trained."""

    name = "frod"
    title = "FRoD"
    summary = "Decomposes all weights of a kind jointly, and trains the scales and a few rotations between directions."
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="sparse: diagonal and single entries in a shared basis",
        parameter_sharing="across layers: the basis",
        integration_form="replacement of the weight",
    )
    # sparsity of the PEFT project's run
    references = (
        Reference(
            "FRoD: Full-Rank Efficient Fine-Tuning with Rotational Degrees for Fast Convergence",
            "https://doi.org/10.1609/aaai.v40i31.39813",
            2026,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ (in + ρ·in²) over the target layers, ρ = sparse_rate"
    tuner = "FrodConfig"
    rate = 1e-4
    narrow_rate = 1e-2
    takes_conv1d = True
    constants: ClassVar[Mapping[str, Any]] = {"progressbar": False}
    # the frozen weight is taken apart in float32 and put together again, which rounds
    starts_as_base = False
    limits = (
        "Starts with a joint decomposition of all targets, and holds a second copy of their weights.",
        "Loading repeats a part of it, so that the adapter needs the very weights it was made from.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many rotations."""
        help_ = "share of the entries off the diagonal that are trained"
        return (
            Hyperparameter("sparse_rate", 0.01, "float", help_, 1e-6, 1.0, search=(0.005, 0.01, 0.02), log=True),
            Hyperparameter("frod_dropout", 0.0, "float", "dropout before the layer", 0, 0.9),
        )

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """Full."""
        return None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The diagonal, and the rotations."""
        return linear.in_features + self._rotations(linear, values)

    def _rotations(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        square = linear.in_features**2
        return max(1, min(int(square * float(values["sparse_rate"])), square - linear.in_features))

    def _kinds(self, shape: ModelShape, values: Mapping[str, Any]) -> list[LinearModule]:
        """One layer of each kind, as peft tells them apart: by the end of their names."""
        return list({tuple(item.path.split(".")[-3:]): item for item in self.targets(shape, values)}.values())

    def shared_untrained(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The basis of each kind, where its rotations are, and its size."""
        return sum(item.in_features**2 + 2 * self._rotations(item, values) + 2 for item in self._kinds(shape, values))

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input in the basis, and the matrix of rotations; the weight's other side is held."""
        inside, entries = linear.in_features, self._rotations(linear, values)
        held = float(width * inside * linear.out_features)
        return Kept(a_position=float(width * inside), a_step=float(width * inside**2 + 16 * entries), held=held)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer FRoD."""
    return (Frod,)
