"""Mathematics in words: a problem to its worked answer."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class MathReasoning(GenerationTask):
    """The model writes its way to an answer after ``####``; only that answer is scored, as GSM8K does."""

    name = "math_reasoning"
    title = "Mathematical reasoning"
    aliases = ("math", "gsm8k", "math_word_problems", "reasoning")
    columns = text_columns(("prompt", "question", "problem", "instruction"), ("completion", "answer", "solution"))
    metrics = ("answer_accuracy", "last_number_accuracy")
    default_models = ("qwen2.5-1.5b", "llama-3.2-1b", "qwen3-0.6b", "smollm2-360m", "smollm2-135m")
    default_max_length = 512
    default_max_target_length = 320
    template = "Question: {source}"
    separator = "\nAnswer: "


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer mathematical reasoning."""
    return (MathReasoning,)
