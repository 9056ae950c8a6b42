"""Which emotion a voice has, by unweighted average recall as the corpora are unbalanced."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Task
from peftselect.tasks._speech import SOUND, SpokenClassification


class SpeechEmotion(SpokenClassification):
    """Which emotion a voice has, by unweighted average recall as the corpora are unbalanced."""

    name = "speech_emotion"
    title = "Speech emotion"
    aliases = ("speech_emotion_recognition", "ser", "emotion_recognition")
    columns = (SOUND, Column("emotion", "label", ("label", "labels", "class")))
    target = "emotion"
    metrics = ("unweighted_average_recall", "weighted_f1", "accuracy")


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer it."""
    return (SpeechEmotion,)
