"""Lily: low-rank updates whose second factors are experts that all layers share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class Lily(UpdateMethod):
    """Neighbouring layers share an A; all layers of a kind share the experts B, which a router mixes for each batch."""

    name = "lily"
    title = "Lily"
    summary = "Shares the factors of low-rank updates across layers, and lets a router mix the second ones."
    aliases = ("low_rank_interconnected_adaptation",)
    structure = replace(
        UpdateMethod.structure,
        intra_connectivity="dense: linear MLP",
        inter_connectivity="dynamic: router",
        parameter_sharing="across layers",
    )
    # two experts as in the PEFT project's run (which adapts the feed-forward part with r=140, A shared by 14 layers, a
    # scale of 8); rank, scale and neighbours as in peft
    references = (
        Reference("Low-Rank Interconnected Adaptation across Layers", "https://arxiv.org/abs/2407.09946", 2024),
    )
    rate_from = (
        "ours up to a width of 1,024, tried on a MiniLM and 400 news; above it the PEFT project's run; the authors' "
        "scripts have 5e-3 for RoBERTa-base at scales of 0.01 and 0.1, 3e-4 for LLaMA-3-8B"
    )
    formula = "Σ (r·in/S + K·r) over the target layers + K·r·out for each kind of layer, K = num_B, S = stride_A"
    tuner = "LilyConfig"
    rate = 1e-4
    narrow_rate = 1e-3
    quantized_base = "possible"
    mergeable = False
    adds_inference_cost = True
    # the router's mixture is that of the whole batch
    decodes_with_cache = False
    limits = (
        "The mixture of the experts is averaged over the batch, so that an answer depends on what it is asked with.",
        "The file holds a copy of what is shared for every layer.",
    )

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, neighbours and experts."""
        return (
            Hyperparameter("r", 32, "int", "rank of the updates", 1, 1024, search=(32, 64, 128), log=True),
            Hyperparameter("scaling", 1.0, "float", "the update is multiplied by it", 1e-3, 1e3, log=True),
            Hyperparameter("stride_A", 1, "int", "neighbouring layers that share a first factor", 1, 128),
            Hyperparameter("num_B", 2, "int", "experts", 2, 64, search=(2, 4)),
        )

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """The router; the factors are counted with what is shared."""
        return int(values["r"]) * int(values["num_B"])

    def shared_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Experts of each kind of layer, and a first factor for each group of neighbours."""
        rank, experts, stride = int(values["r"]), int(values["num_B"]), int(values["stride_A"])
        linears = self.targets(shape, values)
        named = not isinstance(self.peft_targets(shape, linears), str)
        kinds: Counter[tuple[str, int, int]] = Counter()
        for item in linears:
            kinds[item.name if named else "", item.in_features, item.out_features] += item.count
        return sum(
            experts * rank * outside + rank * inside * -(-number // stride)
            for (_, inside, outside), number in kinds.items()
        )

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Every layer's own copy of its factors."""
        rank, experts = int(values["r"]), int(values["num_B"])
        own = sum(
            item.count * rank * (item.in_features + experts * (item.out_features + 1))
            for item in self.targets(shape, values)
        )
        return own + shape.head.parameters

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """What is added: nothing is merged."""
        return self.trainable_parameters(shape, values)

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The input, what the router and the experts read, and their mixture."""
        rank, experts = int(values["r"]), int(values["num_B"])
        return Kept("float32", a_position=4.0 * (rank + experts), a_step=4.0 * rank * linear.out_features)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer Lily."""
    return (Lily,)
