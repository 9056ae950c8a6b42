"""Speech recognition: what is said, letter by letter (CTC) or written by Whisper's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Row, Task
from peftselect.tasks._speech import SOUND, Transcription


class SpeechRecognition(Transcription):
    """Transcripts, scored by the errors a word and a character."""

    name = "speech_recognition"
    title = "Speech recognition"
    aliases = ("asr", "automatic_speech_recognition", "speech_to_text", "stt")
    columns = (
        SOUND,
        Column("text", "text", ("transcript", "transcription", "sentence", "target", "normalized_text"), answer=True),
    )
    metrics = ("wer", "cer")
    default_models = ("whisper-small", "wav2vec2-base", "whisper-tiny")

    def symbols(self, row: Row) -> list[str]:
        """Characters, blanks among them; runs of white space are one."""
        return list(" ".join(str(row["text"]).split()))

    def read(self, symbols: Sequence[str]) -> Any:
        """The text, its blanks in order."""
        return " ".join(str(super().read(symbols)).split())


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer speech recognition."""
    return (SpeechRecognition,)
