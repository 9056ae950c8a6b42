"""Phoneme recognition: the sounds of a language that a clip is made of."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Row, Task
from peftselect.tasks._speech import SOUND, Transcription


class PhonemeRecognition(Transcription):
    """A sequence of phonemes, scored by the errors a phoneme."""

    name = "phoneme_recognition"
    title = "Phoneme recognition"
    aliases = ("pr", "phone_recognition")
    columns = (SOUND, Column("phonemes", "tokens", ("phones", "phoneme_sequence", "ipa"), answer=True))
    metrics = ("per",)
    joint = " "

    def symbols(self, row: Row) -> list[str]:
        """The phonemes."""
        return [str(item) for item in row["phonemes"]]


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer phoneme recognition."""
    return (PhonemeRecognition,)
