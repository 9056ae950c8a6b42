"""Embedding prompts: trained vectors before the input of every encoder block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, SPEECH_HEADS, Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class EmbeddingPrompt(Method):
    """Vectors that each block sees before the sequence and that leave it again behind the block."""

    name = "embedding_prompt"
    title = "Embedding prompt"
    summary = "Puts trained vectors before the input of every encoder block: prompt tuning that speech models can have."
    family = "additive"
    aliases = ("embedding_prompts",)
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="concatenation",
        workspace="block inputs",
    )
    # Feng and Narayanan 2023, section 3: five vectors a block
    references = (
        Reference(
            "PEFT-SER: On the Use of Parameter Efficient Transfer Learning Approaches For Speech Emotion Recognition"
            " Using Pre-trained Speech Models",
            "https://arxiv.org/abs/2306.05350",
            2023,
        ),
    )
    rate_from = "ours; Feng and Narayanan 2023 train at 5e-4 for 30 epochs, and short runs want more"
    formula = "L·n·d"
    thesis = ("T2.6",)
    limits = ("Encoders alone.", "Cannot be merged: every block reads a longer sequence.")
    architectures = frozenset({"encoder"})
    heads = ALL_HEADS - SPEECH_HEADS
    acts_on = frozenset({"embedding"})
    quantized_base = "possible"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Vectors a block, and rate."""
        return (
            Hyperparameter("num_virtual_tokens", 5, "int", "vectors before each block", 1, 1000, search=(5, 10, 20)),
            Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Each block must be a module of its own."""
        if any(linear.runs != linear.count for linear in shape.linears):
            return f"the blocks of {shape.model_type} share their layers"
        return None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """n d a block, and the head."""
        return int(values["num_virtual_tokens"]) * shape.hidden_size * shape.num_layers + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Longer sequences inside the blocks."""
        return MemoryTraits(block_tokens=int(values["num_virtual_tokens"]))

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BlockPromptConfig."""
        from peftselect import BlockPromptConfig

        return BlockPromptConfig(
            target_modules=r"(?:.*\.)?(?:(?:encoder|transformer)\.layers?|albert_layers)\.\d+",
            num_virtual_tokens=int(values["num_virtual_tokens"]),
            width=shape.hidden_size,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer embedding prompts."""
    return (EmbeddingPrompt,)
