"""RoAd: turns and stretches pairs of each layer's outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape

#: angles and lengths trained for each output
_SHARE = {"road_1": 0.5, "road_2": 1.0, "road_4": 2.0}


class Road(UpdateMethod):
    """Outputs are taken in pairs, each rotated by a trained angle and scaled by a trained length."""

    name = "road"
    title = "RoAd"
    summary = "Rotates and scales pairs of outputs of frozen layers: two numbers for each of them."
    aliases = ("2d_rotary_adaptation",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="none: parameter vectors",
        input_type="hidden",
        insertion_form="sequential",
        integration_form="rotation",
    )
    # variant of the PEFT project's run
    references = (
        Reference(
            "3-in-1: 2D Rotary Adaptation for Efficient Finetuning, Efficient Batching and Composability",
            "https://arxiv.org/abs/2409.00119",
            2024,
        ),
    )
    rate_from = "the PEFT project's run; Liao and Monz 2024 tune at 1e-3 to 5e-3"
    formula = "Σ 2·out over the target layers (half of it for road_1, twice for road_4)"
    tuner = "RoadConfig"
    rate = 1e-3
    quantized_base = "possible"
    divides: ClassVar[Mapping[str, Any]] = {"group_size": "out"}
    # rotations are elementwise, which autocast leaves in float32
    autocast_width = 4

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """What pairs share, and which outputs are paired."""
        size = self.divisor(shape, 64, "out")
        return (
            Hyperparameter(
                "variant", "road_2", "str", "one angle for a pair, for an output, or two", choices=tuple(_SHARE),
                search=tuple(_SHARE),
            ),
            Hyperparameter("group_size", size, "int", "outputs among which the pairs are", 2, 4096, log=True),
        )  # fmt: skip

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Pairs are of one group."""
        if int(values["group_size"]) % 2:
            return f"group_size={values['group_size']} is odd: outputs are taken in pairs"
        return super().unsupported(shape, values)

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Angles and lengths."""
        return 2 * int(linear.out_features * _SHARE[values["variant"]])

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The output in float32, as it is and with its pairs swapped."""
        return Kept(a_position=8.0 * linear.out_features, a_step=16.0 * linear.out_features)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer RoAd."""
    return (Road,)
