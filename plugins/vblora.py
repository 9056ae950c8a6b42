"""VB-LoRA: low-rank factors put together from a bank of vectors that all layers share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import Hyperparameter, Kept, Reference, UpdateMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape


class VbLora(UpdateMethod):
    """Each piece of A and B is a mixture of the k best vectors of the bank, weighted by trained logits."""

    name = "vblora"
    title = "VB-LoRA"
    summary = "LoRA whose factors are mixtures of vectors from one trained bank for the whole model."
    aliases = ("vb_lora",)
    structure = replace(UpdateMethod.structure, parameter_sharing="across layers")
    # Li et al. 2024, appendix: rank 4, k 2, vectors as long as a divisor of the width
    references = (
        Reference(
            "VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks",
            "https://arxiv.org/abs/2405.15179",
            2024,
        ),
    )
    rate_from = "Li et al. 2024, appendix: 1e-3 for the bank; their logits have 1e-2, here one rate serves both"
    formula = "v·V + Σ r·V·(in + out)/v over the target layers, V = num_vectors, v = vector_length"
    tuner = "VBLoRAConfig"
    rate = 1e-3
    takes_conv1d = True
    quantized_base = "possible"
    reaches_all_rows = False
    # bank and logits are drawn, so that the first update is small, but none that vanishes
    starts_as_base = False
    divides: ClassVar[Mapping[str, Any]] = {"vector_length": "both"}
    simplified = ("Bank and logits learn at one rate, where the paper gives the logits ten times that of the bank.",)
    limits = ("The file holds every logit, so that training can go on; only the best of each piece are used.",)

    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, bank, and how many of its vectors a piece is made of."""
        length = self.divisor(shape, 256, "both")
        return (
            Hyperparameter("r", 4, "int", "rank of the update", 1, 256, search=(4, 8), log=True),
            Hyperparameter(
                "num_vectors", 256, "int", "vectors in the bank", 2, 65536, search=(90, 256, 2048), log=True
            ),
            Hyperparameter("vector_length", length, "int", "length of a vector", 1, 4096, log=True),
            Hyperparameter("topk", 2, "int", "vectors mixed for a piece", 1, 64),
            Hyperparameter("vblora_dropout", 0.0, "float", "dropout before the update", 0, 0.9),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be enough vectors to choose from."""
        if values["topk"] > values["num_vectors"]:
            return f"topk={values['topk']} is more than num_vectors={values['num_vectors']}"
        return super().unsupported(shape, values)

    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """A logit for each vector of the bank and each piece of both factors."""
        pieces = (linear.in_features + linear.out_features) // int(values["vector_length"])
        return int(values["r"]) * pieces * int(values["num_vectors"])

    def shared_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The bank."""
        return int(values["num_vectors"]) * int(values["vector_length"])

    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """The inputs of both factors, and what they are made of."""
        rank, best = int(values["r"]), int(values["topk"])
        pieces = 4.0 * (best + 1) + 12.0 * best / int(values["vector_length"])
        widths = linear.in_features + linear.out_features
        return Kept("float32", a_position=4.0 * rank, a_step=rank * widths * pieces)


@hookimpl
def register_methods() -> tuple[type[UpdateMethod], ...]:
    """Offer VB-LoRA."""
    return (VbLora,)
