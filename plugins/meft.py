"""MEFT: a frozen model made reversible by adapters: activations are computed again from outputs, not kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Reference, SideMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Meft(SideMethod):
    """Two streams a model, of which each block's input follows from its output."""

    name = "meft"
    title = "MEFT"
    summary = "Makes a frozen model reversible by adapters, so that activations are computed again, not kept."
    aliases = ("meft1", "memory_efficient_fine_tuning")
    structure = replace(
        SideMethod.structure,
        intra_connectivity="dense: non-linear MLP",
        insertion_form="parallel, reversible",
        integration_form="scaled addition",
        workspace="block",
    )
    # Liao et al. 2023, section 4 and the authors' script for BERT: width 8, lambda 0.1, beta 1
    references = (
        Reference(
            "Make Pre-trained Model Reversible: From Parameter to Memory Efficient Fine-Tuning",
            "https://arxiv.org/abs/2306.00477",
            2023,
        ),
    )
    rate_from = "the authors' script for BERT: 5e-4 to 8e-4 are searched"
    formula = "2·L·(2·d·b + b + d)"
    thesis = ("2.3",)
    limits = (
        "Encoders and decoders: through cross-attention a gradient would have to enter an encoder, which the streams of"
        " the decoder do not carry.",
        "A step computes every block twice.",
        "Training starts near the base, not at it: the head reads the mean of the last two blocks' states.",
        "Cannot be merged: every call of the model pays for the adapters.",
    )
    simplified = (
        "The first of the paper's three forms; the adapter inside F stands beside the block, not beside its FFN.",
        "Streams are carried in 64 bits, so that every layer can be reversed; the paper leaves some as they are.",
    )
    architectures = frozenset({"encoder", "decoder"})

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width of the adapters, both factors, and the rate."""
        return (
            Hyperparameter("bottleneck", 8, "int", "inner width of an adapter", 1, 4096, search=(8, 32, 64), log=True),
            Hyperparameter("lambda_", 0.1, "float", "factor on the first stream", 0.01, 1.0, search=(0.05, 0.1, 0.2)),
            Hyperparameter("beta", 1.0, "float", "factor on the second stream", 0.1, 1.0),
            Hyperparameter("learning_rate", 6e-4, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Two adapters a block, and the head."""
        width, inner = shape.hidden_size, int(values["bottleneck"])
        return 2 * shape.num_layers * (2 * width * inner + inner + width) + shape.head.parameters

    def kept_numbers(self, shape: ModelShape, values: Mapping[str, Any], stack: str) -> float:
        """What both adapters of a block read, and their inner activations."""
        return float(self.blocks(shape).get(stack, 0) * 2 * (shape.hidden_size + 2 * int(values["bottleneck"])))

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """One block at a time is computed again."""
        return replace(super().memory(shape, values, compute_bytes), backward_reaches="input", reversible=True)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ReversibleConfig."""
        from peftselect import ReversibleConfig

        return ReversibleConfig(
            bottleneck=int(values["bottleneck"]),
            decay=float(values["lambda_"]),
            carry=float(values["beta"]),
            **self.side_arguments(shape, context),
        )


@hookimpl
def register_methods() -> tuple[type[SideMethod], ...]:
    """Offer MEFT."""
    return (Meft,)
