"""Code summarization: a function to a sentence that says what it does."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class CodeSummarization(GenerationTask):
    """Scored with the smoothed sentence BLEU-4 of CodeXGLUE, as the thesis's table 2.13 is."""

    name = "code_summarization"
    title = "Code summarization"
    aliases = ("code_summary", "code_to_text", "comment_generation", "docstring_generation")
    modality = "code"
    columns = text_columns(("code", "function", "original_string", "body"), ("docstring", "comment", "summary", "nl"))
    metrics = ("bleu4", "rougeL", "chrf")
    default_models = ("codet5-large", "codet5-base", "codet5-small")
    default_max_length = 256
    default_max_target_length = 128
    template = "summarize: {source}"


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer code summarization."""
    return (CodeSummarization,)
