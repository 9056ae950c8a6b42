"""In-context learning: a few solved examples stand in the prompt, and nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import LANGUAGE_MODEL_HEADS, BaselineMethod, Hyperparameter, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ModelShape


class InContextLearning(BaselineMethod):
    """Training rows, drawn by the seed, are put before every question with their answers."""

    name = "in_context_learning"
    title = "In-context learning"
    heads = LANGUAGE_MODEL_HEADS
    summary = "Puts a few solved training examples into the prompt of the base model."
    aliases = ("icl", "few_shot_prompting", "gpt3_in_context_learning", "gpt_3_icl")
    # Brown et al. 2020, section 2: ten to a hundred examples, as many as fit into the window
    references = (Reference("Language Models are Few-Shot Learners", "https://arxiv.org/abs/2005.14165", 2020),)
    thesis = ("3.3", "T2.8")
    adds_inference_cost = True
    limits = (
        "Examples that do not fit into the model's window are left out.",
        "Every call pays for reading the examples.",
        "The predicted memory is that of the questions alone, without the examples.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many examples."""
        shots = Hyperparameter("shots", 4, "int", "solved examples in the prompt", 1, 100, search=(1, 4, 16))
        return (shots, *super().hyperparameters(shape))

    def examples(self, values: Mapping[str, Any]) -> int:
        """As many as are set."""
        return int(values["shots"])


@hookimpl
def register_methods() -> tuple[type[BaselineMethod], ...]:
    """Offer in-context learning."""
    return (InContextLearning,)
