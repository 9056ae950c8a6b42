"""PEQA: the weights become integers for good, and their scales alone are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    ALL_HEADS,
    Hyperparameter,
    MemoryTraits,
    PackedMethod,
    Reference,
    Structure,
    hookimpl,
    integer_bytes,
    reads_encoder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape

#: roles whose layers read one tensor, which is kept once
_READS = {"query": "attention", "key": "attention", "value": "attention", "ffn_gate": "ffn", "ffn_in": "ffn"}


class Peqa(PackedMethod):
    """Parameter-efficient and quantisation-aware adaptation: ``(s0 + Δs) · (code - zero)``, Δs trained."""

    name = "peqa"
    title = "PEQA"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Holds the weights as 3 or 4-bit integers and trains a scale for each output: a task is a set of scales."
    family = "selective"
    aliases = ("parameter_efficient_quantization_aware_adaptation",)
    structure = Structure(
        intra_connectivity="none: scale vector",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing scales",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="in place",
        insertions="all layers",
        integration_form="rescaling",
        workspace="FFN; attention",
    )
    # Kim et al. 2023, appendix: bits 3 and 4, one scale a channel by default
    references = (
        Reference(
            "Memory-Efficient Fine-Tuning of Compressed Large Language Models via sub-4-bit Integer Quantization",
            "https://arxiv.org/abs/2305.14152",
            2023,
        ),
    )
    rate_from = (
        "Kim et al. 2023, appendix: 5e-6 to 6e-5 for models of 2.7B to 65B; scales are about 1e-2, a step of Adam as "
        "large as the rate"
    )
    thesis = ("2.3",)
    formula = "Σ out over the target layers (out · in/G with groups of G inputs)"
    acts_on = frozenset({"attention", "ffn"})
    default_targets = "all-linear"
    judged = False
    mergeable = True
    adds_inference_cost = False
    limits = (
        PackedMethod.loaded_whole,
        "Switched off, the base is left as rounding made it; merged, it is written in floating point.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Bits, groups, targets and rate."""
        return (
            self.bits_setting(),
            Hyperparameter(
                "group_size", 0, "int", "inputs that share a scale; 0: all of a row", 0, 4096, search=(0, 64, 128, 256)
            ),
            self.target_setting(shape),
            Hyperparameter("learning_rate", 5e-5, "float", "peak learning rate", 1e-7, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Groups must fill every row."""
        return super().unsupported(shape, values) or self.ragged(shape, values)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A scale for each group of each output, and the head."""
        group = int(values["group_size"])
        scales = sum(
            item.count * item.out_features * (item.in_features // group if group else 1)
            for item in self.targets(shape, values)
        )
        return scales + shape.head.parameters

    def matrix_bytes(self, linear: LinearModule, values: Mapping[str, Any], compute_bytes: int) -> int:
        """Integers, a zero point and the first scale a group."""
        return integer_bytes(linear, int(values["bits"]), int(values["group_size"]), compute_bytes)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of the targets, from which the scales get their gradients; projections share theirs."""
        kept = {True: 0.0, False: 0.0}
        seen: set[tuple[Any, ...]] = set()
        for linear in self.targets(shape, values):
            side = reads_encoder(linear)
            read = (
                linear.stack,
                linear.cross_attention,
                side,
                linear.in_features,
                _READS.get(linear.role, linear.path),
            )
            if read not in seen:
                kept[side] += linear.runs * linear.in_features * compute_bytes
            seen.add(read)
        return self.packed(MemoryTraits((kept[True], kept[False])), shape, values, compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ScalesConfig."""
        from peftselect import ScalesConfig

        return ScalesConfig(
            bits=int(values["bits"]),
            block=int(values["group_size"]),
            target_modules=self.peft_targets(shape, self.targets(shape, values)),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[PackedMethod], ...]:
    """Offer PEQA."""
    return (Peqa,)
