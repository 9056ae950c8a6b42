"""PVeRA: VeRA whose inner vector is drawn from a distribution that depends on the input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Pvera(UpdateMethod):
    """The shared random matrix A gives a mean and a variance, from which the hidden vector is drawn in training."""

    name = "pvera"
    title = "PVeRA"
    summary = "VeRA with a hidden vector drawn around its mean while training; the mean alone is used afterwards."
    aliases = ("probabilistic_vera",)
    structure = replace(UpdateMethod.structure, parameter_sharing="across layers")
    # rank and start of the PEFT project's run
    references = (
        Reference(
            "PVeRA: Probabilistic Vector-Based Random Matrix Adaptation", "https://arxiv.org/abs/2512.07703", 2025
        ),
    )
    rate_from = "the PEFT project's run on Llama-3.2-3B"
    formula = "Σ (2·r + out) over the target layers"
    tuner = "PveraConfig"
    rate = 3e-3
    takes_conv1d = True
    quantized_base = "possible"
    # what is drawn is drawn anew when activations are computed again
    limits = ("The file holds the random matrices too, so that it depends on no random generator.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank of what is shared, and where the inner vectors start."""
        return (
            Hyperparameter("r", 64, "int", "rank of the shared matrices", 1, 4096, search=(64, 256), log=True),
            Hyperparameter("d_initial", 0.1, "float", "initial value of the inner vectors", 1e-6, 10.0, log=True),
            Hyperparameter("pvera_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Vectors for mean and variance, and one as long as the output."""
        return 2 * int(values["r"]) + linear.out_features

    def shared_untrained(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The random matrices, the first of which has rows for mean and variance."""
        linears, rank = self.targets(shape, values), int(values["r"])
        return rank * (2 * max(item.in_features for item in linears) + max(item.out_features for item in linears))

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """Mean and variance before their vectors, the deviation, what was drawn; and the output."""
        return Kept(a_position=4.0 * (4 * int(values["r"]) + linear.out_features))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer PVeRA."""
    return (Pvera,)
