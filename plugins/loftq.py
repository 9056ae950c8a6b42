"""LoftQ: 4-bit weights and low-rank factors are chosen together, so that their sum is near the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    Hyperparameter,
    PackedLowRankMethod,
    Reference,
    Structure,
    hookimpl,
    normal_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class LoftQ(PackedLowRankMethod):
    """Codes of what the factors do not cover, and factors of what the codes miss, in turn (Li et al., algorithm 1)."""

    name = "loftq"
    title = "LoftQ"
    summary = "LoRA over 4-bit weights whose factors start from what the rounding lost, so that little is lost."
    aliases = ("loftq_init",)
    structure = Structure(
        intra_connectivity="dense: linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization over a quantised base",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all linear layers",
        integration_form="scaled addition",
        workspace="attention; FFN",
    )
    # Li et al. 2023, section 4: NF4 and NF2 in blocks of 64, all matrices, 5 rounds
    references = (
        Reference(
            "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models",
            "https://arxiv.org/abs/2310.08659",
            2023,
        ),
    )
    rate_from = "QLoRA's by width; Li et al. 2023 (section 4) have 1e-4 to 4e-4 for LLaMA-2"
    thesis = ("2.3",)
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    # what is left, its decomposition, and what the factors cover
    packing_bytes_per_weight = 30.0
    limits = (
        PackedLowRankMethod.loaded_whole,
        "Loading repeats the decomposition, so that the adapter needs the very weights it was made from.",
        "Merged, the base is in floating point again, as large as it was.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of an update over packed weights, and the rounds."""
        rounds = Hyperparameter("rounds", 5, "int", "rounds of quantising and factorising", 1, 50, search=(1, 5))
        return (*super().hyperparameters(shape), rounds)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The factors cannot hold more singular values than there are."""
        return super().unsupported(shape, values) or self.rank_too_large(shape, values)

    def matrix_bytes(self, linear: LinearModule, values: Mapping[str, Any], compute_bytes: int) -> int:
        """NormalFloat in blocks of 64."""
        return normal_bytes(linear, int(values["bits"]), 64)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our PackedConfig."""
        from peftselect import PackedConfig

        return PackedConfig(rounds=int(values["rounds"]), block=64, **self.settings(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[PackedLowRankMethod], ...]:
    """Offer LoftQ."""
    return (LoftQ,)
