"""QA-LoRA: a low-rank update of groups of weights, which the zero points of 4-bit integers take in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    Hyperparameter,
    MemoryTraits,
    PackedLowRankMethod,
    Reference,
    Structure,
    hookimpl,
    integer_bytes,
    reads_encoder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class QaLora(PackedLowRankMethod):
    """LoRA whose input is summed by group, over group-wise integers."""

    name = "qa_lora"
    title = "QA-LoRA"
    summary = "LoRA over 4-bit integers that reads sums of groups, so that it merges into the zero points without loss."
    aliases = ("quantization_aware_lora", "quantization_aware_low_rank_adaptation")
    structure = Structure(
        intra_connectivity="dense: linear, input pooled by group",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization over a quantised base",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all linear layers",
        integration_form="scaled addition, mergeable into zero points",
        workspace="attention; FFN",
    )
    # Xu et al. 2023, section 4.1: groups of 32, all linear layers. Inputs are summed as in algorithm 1; the authors'
    # code takes their mean, which another scale makes up for
    references = (
        Reference(
            "QA-LoRA: Quantization-Aware Low-Rank Adaptation of Large Language Models",
            "https://arxiv.org/abs/2309.14717",
            2023,
        ),
    )
    rate_from = "QLoRA's by width; the authors' code has 2e-4 for LLaMA-7B over means of groups, 1/32 of the sums"
    thesis = ("2.3",)
    formula = "Σ r·(in/G + out) over the target layers, G weights a group"
    records_like = "lora"
    judged = False
    limits = (
        PackedLowRankMethod.loaded_whole,
        "A merged model is written in floating point, as transformers loads it; its weights are still integers"
        " of so many bits under one scale and zero point a group.",
    )
    simplified = ("Weights are rounded to the nearest integer; the paper quantises by GPTQ, which reads data.",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of an update over packed weights, and the size of a group."""
        group = Hyperparameter("group_size", 32, "int", "inputs of a row in one group", 2, 1024, search=(32, 64, 128))
        return (*super().hyperparameters(shape), group)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Groups must fill every row."""
        return super().unsupported(shape, values) or self.ragged(shape, values)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """r (in / G + out) a target, and the head."""
        rank, group = int(values["r"]), int(values["group_size"])
        adapters = sum(
            item.count * rank * (item.in_features // group + item.out_features) for item in self.targets(shape, values)
        )
        return adapters + shape.head.parameters

    def matrix_bytes(self, linear: LinearModule, values: Mapping[str, Any], compute_bytes: int) -> int:
        """Integers, a scale and a zero point a group."""
        return integer_bytes(linear, int(values["bits"]), int(values["group_size"]), compute_bytes)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The sums of groups, in float32, and what the second factor reads."""
        rank, group = int(values["r"]), int(values["group_size"])
        width = 5 if float(values["lora_dropout"]) > 0 else 4  # dropout keeps its output, and a byte an element
        kept = {True: 0.0, False: 0.0}
        for linear in self.targets(shape, values):
            kept[reads_encoder(linear)] += linear.runs * (4 * rank + linear.in_features / group * width)
        return self.packed(MemoryTraits((kept[True], kept[False])), shape, values, compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our GroupConfig."""
        from peftselect import GroupConfig

        return GroupConfig(block=int(values["group_size"]), **self.settings(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[PackedLowRankMethod], ...]:
    """Offer QA-LoRA."""
    return (QaLora,)
