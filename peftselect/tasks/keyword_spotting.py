"""Which of some words a short clip says."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Task
from peftselect.tasks._speech import SOUND, SpokenClassification


class KeywordSpotting(SpokenClassification):
    """Which of some words a short clip says."""

    name = "keyword_spotting"
    title = "Keyword spotting"
    aliases = ("speech_commands", "ks", "spoken_commands", "audio_classification")
    columns = (SOUND, Column("label", "label", ("labels", "keyword", "word", "digit", "command", "class")))
    metrics = ("accuracy", "unweighted_average_recall", "weighted_f1")


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer it."""
    return (KeywordSpotting,)
