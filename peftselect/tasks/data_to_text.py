"""Data to text: a table, a record or a meaning representation to a sentence."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class DataToText(GenerationTask):
    """Scored with ROUGE-L, as the thesis's table 2.5 does, and BLEU."""

    name = "data_to_text"
    title = "Data to text"
    aliases = ("table_to_text", "nlg", "data2text")
    columns = text_columns(("meaning_representation", "mr", "linearized_input", "table"), ("human_reference", "ref"))
    metrics = ("rougeL", "bleu", "rouge1", "rouge2")
    default_models = ("flan-t5-base", "flan-t5-small", "t5-small")
    default_max_length = 256
    default_max_target_length = 128
    template = "describe: {source}"


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer data to text."""
    return (DataToText,)
