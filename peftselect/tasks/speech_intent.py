"""What a spoken command wants."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Task
from peftselect.tasks._speech import SOUND, SpokenClassification


class SpeechIntent(SpokenClassification):
    """What a spoken command wants."""

    name = "speech_intent"
    title = "Intent from speech"
    aliases = ("spoken_intent", "ic", "spoken_intent_classification", "speech_intent_classification")
    columns = (SOUND, Column("intent", "label", ("action", "label", "labels", "class")))
    target = "intent"
    metrics = ("accuracy", "unweighted_average_recall", "weighted_f1")


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer it."""
    return (SpeechIntent,)
