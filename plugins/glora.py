"""GLoRA: an update that scales and shifts weight and bias."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class GLora(UpdateMethod):
    """``W + W ∘ A + B`` and, where there is a bias, ``b + b D + E + W C``: each of A to E as rich as it is set."""

    name = "glora"
    title = "GLoRA"
    summary = "Scales and shifts weights and biases, each by a low-rank matrix, a vector or a number."
    aliases = ("generalized_lora",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: linear MLPs, vectors and scalars",
        integration_form="direct addition and rescaling",
    )
    # values of the PEFT project's run, whose model has no biases; that D and E are left out is ours
    references = (
        Reference(
            "One-for-All: Generalized LoRA for Parameter-Efficient Fine-tuning",
            "https://arxiv.org/abs/2306.07967",
            2023,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the better of the PEFT project's runs "
        "on Llama-3.2-3B (1e-4 and 5e-4)"
    )
    formula = "Σ 2·r·(in + out), and r·(in + 1) where there is a bias, over the target layers (with the defaults)"
    tuner = "GloraConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    simplified = ("What A to E are is set for all layers, where the paper searches for it layer by layer.",)
    limits = ("Makes a weight of its own in every step, and keeps it for the backward pass.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, and what the parts are."""
        kinds = ("lora", "vector", "constant", "none")
        return (
            Hyperparameter("r", 8, "int", "rank of the low-rank parts", 1, 1024, search=(4, 8, 16), log=True),
            Hyperparameter("config_A_B", "lora", "str", "what scales and shifts the weight", choices=kinds[:3]),
            Hyperparameter("config_C", "lora", "str", "what the weight adds to the bias", choices=(*kinds[:2], "none")),
            Hyperparameter("config_D_E", "none", "str", "what scales and shifts the bias", choices=kinds[1:]),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A and B, and C, D and E where there is a bias."""
        rank, inside, outside = int(values["r"]), linear.in_features, linear.out_features
        weight = {"lora": rank * (inside + outside), "vector": outside, "constant": 1}[values["config_A_B"]]
        through = {"lora": rank * (inside + 1), "vector": inside, "none": 0}[values["config_C"]]
        bias = {"vector": outside, "constant": 1, "none": 0}[values["config_D_E"]]
        return 2 * weight + (through + 2 * bias if linear.bias else 0)

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Zeros in the place of what is left out."""
        through = linear.in_features if not linear.bias or values["config_C"] == "none" else 0
        return through + (2 * linear.out_features if not linear.bias or values["config_D_E"] == "none" else 0)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, and the weight that multiplies it."""
        return Kept("own", a_step=float(width * linear.in_features * linear.out_features))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer GLoRA."""
    return (GLora,)
