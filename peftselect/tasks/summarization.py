"""Summarization: a text or dialogue to a short one."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class Summarization(GenerationTask):
    """Scored with ROUGE; T5 models were pretrained on the prompt ``summarize: ``."""

    name = "summarization"
    title = "Summarization"
    aliases = ("summarisation", "summary", "dialogue_summarization", "abstractive_summarization")
    columns = text_columns(("dialogue", "document", "article"), ("summary", "highlights"))
    metrics = ("rougeL", "rouge1", "rouge2", "rougeLsum")
    default_models = ("flan-t5-base", "flan-t5-small", "t5-small")
    default_max_length = 512
    default_max_target_length = 128
    template = "summarize: {source}"


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer summarization."""
    return (Summarization,)
