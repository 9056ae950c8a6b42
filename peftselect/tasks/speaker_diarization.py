"""Who speaks when: advised on by the table that measures it, trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from peftselect import audio
from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Row
from peftselect.tasks._advised import AdvisedTask
from peftselect.tasks._speech import SOUND


class SpeakerDiarization(AdvisedTask):
    """Which of the speakers of a recording speaks at each moment (SUPERB's SD)."""

    name = "speaker_diarization"
    title = "Speaker diarization"
    aliases = ("diarization", "sd", "who_speaks_when")
    family = "speech"
    modality = "speech"
    #: a vector of speakers a frame is as large as one a clip
    heads: ClassVar[Mapping[str, str]] = {"encoder": "audio_classification"}
    columns = (SOUND, Column("segments", "text", ("rttm", "turns", "label")))
    metrics = ("diarization_error_rate",)
    higher_is_better = False
    default_models = ("wavlm-base-plus", "hubert-base", "wav2vec2-base")
    default_max_length: ClassVar[int] = 15
    elsewhere = "SUPERB's recipe in s3prl, or pyannote.audio"
    notes = (
        "Diarization is advised on, not run: its labels are a vector of speakers for each frame, scored without regard "
        "to their order, which SUPERB's recipe in s3prl (or pyannote.audio) does. What ranks the methods here is table "
        "2.12 of the thesis (HuBERT base on LibriMix).",
    )

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The file."""
        return (row["audio"],)

    def input_seconds(self, row: Row) -> float:
        """The recording's length."""
        return audio.seconds(row["audio"])

    def target_text(self, row: Row) -> str:
        """Who speaks when, as it is written."""
        return str(row["segments"])


@hookimpl
def register_tasks() -> tuple[type[SpeakerDiarization], ...]:
    """Offer it."""
    return (SpeakerDiarization,)
