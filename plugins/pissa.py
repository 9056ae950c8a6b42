"""PiSSA: LoRA that starts from the principal part of each weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect import ModelShape


class Pissa(LowRankMethod):
    """Principal singular values and vectors in the factors; the frozen rest stays in the base."""

    name = "pissa"
    title = "PiSSA"
    summary = "LoRA that starts from the largest singular values of each weight and trains these."
    references = (
        Reference(
            "PiSSA: Principal Singular Values and Singular Vectors Adaptation", "https://arxiv.org/abs/2404.02948", 2024
        ),
    )
    rate_from = "LoRA's; Meng et al. 2024 train both at 2e-5 on LLaMA-2-7B at rank 128"
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    # the start takes a part of the base's own weights, which stays taken while the adapter is loaded
    multi_adapter = False
    quantized_base = "no"
    lora_options: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "pissa"}
    limits = (
        "Loading repeats the decomposition of the base, so that the adapter needs the very weights it was made from.",
        "Switching the adapter off leaves the base without what was taken from it.",
    )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The factors cannot hold more singular values than there are."""
        linears = [] if (why := super().unsupported(shape, values)) else self.targets(shape, values)
        if any(int(values["r"]) > min(item.in_features, item.out_features) for item in linears):
            return f"r={values['r']} is more than the singular values of a target"
        return why


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer PiSSA."""
    return (Pissa,)
