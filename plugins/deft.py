"""DEFT: takes a low-rank part out of each weight and puts a trained one in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Deft(UpdateMethod):
    """``(I − P relu(P)ᵀ) W + P R``: P says what is taken out, R what comes in; R starts as what was taken."""

    name = "deft"
    title = "DEFT"
    summary = "Projects a small subspace out of each weight and learns what belongs there, to forget little else."
    aliases = ("decompositional_efficient_finetuning",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: projection and linear MLP",
        integration_form="replacement within a subspace",
    )
    # values of the PEFT project's run; the paper adapts text-to-image models
    references = (
        Reference(
            "DEFT: Decompositional Efficient Fine-Tuning for Text-to-Image Models",
            "https://proceedings.neurips.cc/paper_files/paper/2025/hash/93a34a7138bdad95e874018d5f491cc6-Abstract-Conference.html",
            2025,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B, "
        "at the default of its suite"
    )
    formula = "Σ r·(in + out) over the target layers"
    tuner = "DeftConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    takes_conv1d = True

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale and the kind of projection."""
        kinds = ("relu", "qr")
        return (
            Hyperparameter("r", 32, "int", "rank of what is replaced", 1, 1024, search=(8, 16, 32), log=True),
            Hyperparameter("alpha", 128, "int", "what comes in is scaled by alpha / r", 1, 4096, log=True),
            Hyperparameter(
                "decomposition_method", "relu", "str", "relu, or qr: orthogonal", choices=kinds, search=kinds
            ),
            Hyperparameter("deft_dropout", 0.0, "float", "dropout before what comes in", 0, 0.9),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """A subspace of the outputs is no larger than they are."""
        if why := super().unsupported(shape, values):
            return why
        narrow = min(item.out_features for item in self.targets(shape, values))
        return f"r={values['r']} is more than the {narrow} outputs of a target" if values["r"] > narrow else None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """P and R."""
        return int(values["r"]) * (linear.in_features + linear.out_features)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input; the output before its bias; what the second factors read; R as it is scaled."""
        rank, inside, outside = int(values["r"]), linear.in_features, linear.out_features
        return Kept("float32", a_position=4.0 * outside + 8.0 * rank, a_step=4.0 * rank * (inside + outside))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer DEFT."""
    return (Deft,)
