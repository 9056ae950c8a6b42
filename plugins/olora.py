"""OLoRA: LoRA that starts from a QR decomposition of each weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ModelShape


class Olora(LowRankMethod):
    """The first columns of Q and rows of R of each weight in the factors; the base keeps the rest."""

    name = "olora"
    title = "OLoRA"
    summary = "LoRA whose factors start as the orthonormal part of each weight."
    references = (
        Reference(
            "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models", "https://arxiv.org/abs/2406.01775", 2024
        ),
    )
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    # the start takes a part of the base's own weights, which stays taken while the adapter is loaded
    multi_adapter = False
    quantized_base = "no"
    lora_options: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "olora"}
    limits = (
        "Loading repeats the decomposition of the base, so that the adapter needs the very weights it was made from.",
        "Switching the adapter off leaves the base without what was taken from it.",
    )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Plain linear layers, of at least that rank."""
        linears = [] if (why := super().unsupported(shape, values)) else self.targets(shape, values)
        if any(item.conv1d for item in linears):
            return f"peft decomposes the transposed weights of {shape.model_type} the wrong way round"
        if any(int(values["r"]) > min(item.in_features, item.out_features) for item in linears):
            return f"r={values['r']} is more than a target's own rank"
        return why


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer OLoRA."""
    return (Olora,)
