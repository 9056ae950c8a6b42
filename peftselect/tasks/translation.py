"""Translation: a text in one language to the same in another."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._generation import GenerationTask, text_columns


class Translation(GenerationTask):
    """Scored with sacreBLEU and chrF. Name the languages in the run's template (``translate English to German: ``)."""

    name = "translation"
    title = "Translation"
    aliases = ("machine_translation", "mt", "translate")
    columns = text_columns(("src", "source_text", "sentence"), ("tgt", "translation", "target_text", "reference"))
    metrics = ("bleu", "chrf")
    default_models = ("mt5-base", "mt5-small", "t5-small")
    default_max_length = 256
    default_max_target_length = 256
    template = "translate: {source}"


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer translation."""
    return (Translation,)
