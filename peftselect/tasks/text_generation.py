"""Text generation: a prompt to its completion, on encoder-decoders and on causal models."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class TextGeneration(GenerationTask):
    """Whatever goes from text to text and has no task of its own here."""

    name = "text_generation"
    title = "Text generation"
    aliases = ("generation", "text2text", "seq2seq", "completion")
    columns = text_columns(("prompt", "instruction", "question"), ("completion",))
    metrics = ("rougeL", "rouge1", "bleu", "exact_match")
    default_models = ("llama-3.2-1b", "qwen2.5-0.5b", "flan-t5-base", "smollm2-135m")
    default_max_length = 512
    default_max_target_length = 256


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer text generation."""
    return (TextGeneration,)
