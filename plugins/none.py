"""The base model as it is: what every method is held against."""

from __future__ import annotations

from peftselect import ALL_HEADS, BaselineMethod, Reference, hookimpl


class Untuned(BaselineMethod):
    """Zero-shot: the base model is asked, and nothing is trained."""

    name = "none"
    title = "No fine-tuning (zero-shot)"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Scores the base model as it is, so that there is something to hold methods against."
    aliases = ("zero_shot", "zero_shot_prompting", "prompt_based_zero_shot", "no_finetuning", "wo_ft", "untuned")
    references = (Reference("Language Models are Few-Shot Learners", "https://arxiv.org/abs/2005.14165", 2020),)
    thesis = ("3.3", "T2.8", "T2.13")
    limits = ("A head that is not part of the base model is untrained, so that it guesses.",)


@hookimpl
def register_methods() -> tuple[type[BaselineMethod], ...]:
    """Offer the base model."""
    return (Untuned,)
