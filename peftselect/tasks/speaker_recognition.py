"""Who of the speakers seen in training is speaking."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Task
from peftselect.tasks._speech import SOUND, SpokenClassification


class SpeakerRecognition(SpokenClassification):
    """Who of the speakers seen in training is speaking."""

    name = "speaker_recognition"
    title = "Speaker recognition"
    aliases = ("speaker_identification", "sid", "speaker_id")
    columns = (SOUND, Column("speaker", "label", ("speaker_id", "label", "labels", "class")))
    target = "speaker"
    metrics = ("accuracy", "unweighted_average_recall", "weighted_f1")


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer it."""
    return (SpeakerRecognition,)
