"""VeRA: two trained vectors a layer around random matrices that all layers share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Vera(UpdateMethod):
    """``diag(b) B diag(d) A``: B and A are drawn once for the whole model and stay; b and d are trained."""

    name = "vera"
    title = "VeRA"
    summary = "Trains two vectors a layer around random matrices that all layers share."
    aliases = ("vector_based_random_matrix_adaptation",)
    structure = replace(UpdateMethod.structure, parameter_sharing="across layers", insertions="all layers")
    # Kopiczko et al. 2023, tables 7 to 11: ranks of 256 to 1024, d starts at 0.1
    references = (Reference("VeRA: Vector-based Random Matrix Adaptation", "https://arxiv.org/abs/2310.11454", 2023),)
    rate_from = "Kopiczko et al. 2023, tables 7 to 11: 2e-3 to 1e-1"
    formula = "Σ (r + out) over the target layers"
    tuner = "VeraConfig"
    rate = 1e-2
    takes_conv1d = True
    quantized_base = "possible"
    limits = ("The file holds the two random matrices too, so that it depends on no random generator.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank of what is shared, and where the inner vectors start."""
        return (
            Hyperparameter("r", 256, "int", "rank of the shared matrices", 1, 4096, search=(64, 256, 1024), log=True),
            Hyperparameter("d_initial", 0.1, "float", "initial value of the inner vector", 1e-6, 10.0, log=True),
            Hyperparameter("vera_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A vector as long as the rank, and one as long as the output."""
        return int(values["r"]) + linear.out_features

    def shared_untrained(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The random matrices, as wide as the widest target."""
        linears = self.targets(shape, values)
        widest = max(item.in_features for item in linears) + max(item.out_features for item in linears)
        return int(values["r"]) * widest

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What both vectors multiply: the outputs of the random matrices."""
        return Kept(a_position=4.0 * (int(values["r"]) + linear.out_features))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer VeRA."""
    return (Vera,)
