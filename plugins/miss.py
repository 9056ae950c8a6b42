"""MiSS: an update whose rows are shared by shards of the input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Miss(UpdateMethod):
    """The input is summed over its shards of r numbers, and one trained matrix of r × out reads the sum."""

    name = "miss"
    title = "MiSS"
    summary = "Sums the input over shards and reads the sum by one small trained matrix: fast, and light on memory."
    aliases = ("bone", "matrix_shard_sharing")
    structure = replace(
        UpdateMethod.structure, intra_connectivity="dense: linear", parameter_sharing="across shards of the input"
    )
    # rank of the PEFT project's run
    references = (
        Reference(
            "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure",
            "https://arxiv.org/abs/2409.15371",
            2024,
        ),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run on Llama-3.2-3B; "
        "the authors' script has 2e-5 for LLaMA-2-7B"
    )
    formula = "Σ r·out over the target layers"
    tuner = "MissConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    quantized_base = "possible"

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length of a shard."""
        words = self.target_setting(shape).default
        narrow = min(item.in_features for item in self.targets(shape, {"target_modules": words}))
        return (
            Hyperparameter("r", min(64, narrow), "int", "numbers in a shard", 1, 4096, search=(16, 32, 64), log=True),
            Hyperparameter("miss_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """A shard is no longer than the input."""
        if why := super().unsupported(shape, values):
            return why
        narrow = min(item.in_features for item in self.targets(shape, values))
        return f"r={values['r']} is more than the {narrow} inputs of a target" if values["r"] > narrow else None

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The shared matrix."""
        return int(values["r"]) * linear.out_features

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The sum over the shards."""
        return Kept(a_position=4.0 * int(values["r"]))


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer MiSS."""
    return (Miss,)
