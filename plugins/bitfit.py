"""BitFit: trains the biases that the model has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class BitFit(Method):
    """Bias terms (those of normalisations too), and the head."""

    name = "bitfit"
    title = "BitFit"
    summary = "Trains nothing but the biases: good with few examples, where the model has biases at all."
    family = "selective"
    aliases = ("bias_only",)
    structure = Structure(
        intra_connectivity="none: parameter vector",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing biases",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct addition",
        workspace="all biases",
    )
    references = (
        Reference(
            "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
            "https://arxiv.org/abs/2106.10199",
            2021,
        ),
    )
    rate_from = "Ben Zaken et al. 2021, section 4: 1e-4 to 1e-3 over 16 epochs; the largest, for short runs"
    thesis = ("1.2.2", "T2.5", "T2.7", "T2.8", "T2.9", "T2.10", "T2.12")
    formula = "Σ of all biases"
    acts_on = frozenset({"bias"})
    #: peft overwrites the base's biases, so that one adapter is all a loaded base can hold
    multi_adapter = False
    # peft saves the biases of the head a second and a third time, which is a matter of some hundred numbers
    saved_count_is_exact = False
    quantized_base = "no"
    adds_inference_cost = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone."""
        return (Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be biases."""
        if shape.bias_parameters == 0:
            return f"{shape.model_type} has no bias parameters to train"
        return None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All biases, and the head."""
        return shape.bias_parameters + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The biases of the convolutions over sound are trained as well, where a model hears."""
        return MemoryTraits(reaches_front=shape.audio is not None)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """A LoraConfig without targets, which trains and saves biases like any adapter."""
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        return LoraConfig(
            target_modules=DUMMY_TARGET_MODULES,
            bias="all",
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer BitFit."""
    return (BitFit,)
