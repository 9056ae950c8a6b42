"""Prompt tuning: trained vectors before the input's embeddings, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SoftPromptMethod, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class PromptTuning(SoftPromptMethod):
    """A soft prompt."""

    name = "prompt_tuning"
    title = "Prompt tuning"
    summary = "Trains a few vectors before the input: the smallest adapter, slow to converge, for simple tasks."
    family = "additive"
    aliases = ("prompt", "soft_prompt")
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="1 layer",
        integration_form="concatenation",
        workspace="embedding layer",
        derived=False,
    )
    references = (
        Reference("The Power of Scale for Parameter-Efficient Prompt Tuning", "https://arxiv.org/abs/2104.08691", 2021),
    )
    rate_from = "Lester et al. 2021, section 3: 0.3 on T5; ours for others, whose embeddings are smaller or normalised"
    thesis = ("1.2.2", "2.2.5", "5.3", "T2.3", "T2.4", "T2.5", "T2.7")
    formula = "n·d"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Number of vectors, and the rate."""
        return (
            self.tokens_setting(),
            Hyperparameter(
                "learning_rate", self.prompt_rate(shape), "float", "peak learning rate", 1e-6, 10.0, log=True
            ),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """n vectors, and the head."""
        return self.saved_parameters(shape, values)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's PromptTuningConfig, starting from embeddings of the vocabulary as the paper does."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **self.prompt_arguments(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[SoftPromptMethod], ...]:
    """Offer prompt tuning."""
    return (PromptTuning,)
