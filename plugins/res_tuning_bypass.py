"""Res-Tuning-Bypass: tuners chained beside the frozen base, so that no gradient enters it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SideMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ResTuningBypass(SideMethod):
    """Horizontal tuners read the base's blocks, vertical ones what the tuners before have made."""

    name = "res_tuning_bypass"
    title = "Res-Tuning-Bypass"
    summary = "Chains small tuners into a network beside the base, which reads its blocks; no gradient enters the base."
    aliases = ("bypass", "res-tuning-bypass")
    structure = replace(SideMethod.structure, integration_form="gated addition")
    references = (
        Reference(
            "Res-Tuning: A Flexible and Efficient Tuning Paradigm via Unbinding Tuner from Backbone",
            "https://arxiv.org/abs/2310.19859",
            2023,
        ),
    )
    rate_from = "Jiang et al. 2023, section 4 and appendix: searched around 1e-3, on ViT"
    formula = "L·(2·(2·d·b + b + d) + 1)"
    thesis = ("2.3",)
    limits = (
        "The head reads the bypass, not the base's last states: training starts at a mixture of the base's layers.",
        "In encoder-decoders it runs beside the decoder: from beside the encoder only the base would lead to the head.",
        "Cannot be merged: every call of the model pays for the tuners.",
    )
    simplified = (
        "Both tuners are residual bottlenecks (Res-Adapters); the paper also forms them as prefixes and prompts.",
        "Tuners start at zero and shares at a half; the paper's are images, its last norm here is the base's own.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width of the tuners, and the rate."""
        return (
            Hyperparameter("bottleneck", 32, "int", "inner width of a tuner", 1, 4096, search=(8, 32, 128), log=True),
            Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def blocks(self, shape: ModelShape) -> dict[str, int]:
        """Those of the stack that the head reads."""
        found = super().blocks(shape)
        return {"decoder": found["decoder"]} if len(found) == 2 else found

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Two tuners and a share a block, and the head."""
        width, inner = shape.hidden_size, int(values["bottleneck"])
        blocks = sum(self.blocks(shape).values())
        return blocks * (2 * (2 * width * inner + inner + width) + 1) + shape.head.parameters

    def kept_numbers(self, shape: ModelShape, values: Mapping[str, Any], stack: str) -> float:
        """What both tuners read and give, and their inner activations."""
        return float(self.blocks(shape).get(stack, 0) * 4 * (shape.hidden_size + int(values["bottleneck"])))

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BypassConfig."""
        from peftselect import BypassConfig

        arguments = self.side_arguments(shape, context)
        if shape.architecture == "encoder-decoder":
            arguments["target_modules"] = rf"(?:.*\.)?decoder\.{self.block_names}\.\d+"
        return BypassConfig(bottleneck=int(values["bottleneck"]), **arguments)


@hookimpl
def register_methods() -> tuple[type[SideMethod], ...]:
    """Offer Res-Tuning-Bypass."""
    return (ResTuningBypass,)
