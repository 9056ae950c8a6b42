"""What tasks share whose input is sound: the column, its length, and a collator that reads files as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect import audio
from peftselect.errors import DataError
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext
from peftselect.tasks._labels import label_id, sorted_labels

SOUND = Column("audio", "audio", ("file", "path", "audio_path", "wav", "file_name", "filename", "audio_file"))
#: what separates the labels of a CTC head, and what stands for a label that training never saw
BLANK, UNKNOWN = "<blank>", "<unk>"
#: silence is put behind shorter clips: wav2vec 2.0 masks ten positions at once, which must be there
SHORTEST_SECONDS = 0.3
IGNORED = -100
HEARING = ("wavlm-base-plus", "wav2vec2-base", "whisper-tiny")


class SpeechTask(Task):
    """Sound in; what comes out, and the head that gives it, is the subclass's."""

    modality = "speech"
    family = "speech"
    default_max_length: ClassVar[int] = 10
    default_models = HEARING

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The file, by which the same clip in two sets is found."""
        return (row["audio"],)

    def input_seconds(self, row: Row) -> float:
        """The clip's length."""
        return audio.seconds(row["audio"])

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Files with their labels; sound is read when a batch is put together, since hours of it would fill memory.

        DataError for a clip that is longer than the model is to hear, where its transcript would be cut short.
        """
        from datasets import Dataset

        if not self.cuts_inputs:
            for row in rows:
                if (lasts := audio.seconds(row["audio"])) > context.max_length:
                    raise DataError(
                        f"{row['audio']} lasts {lasts:.1f} s, more than the {context.max_length} s listened to",
                        "cut the recording and its transcript into utterances, or give a larger --max-length",
                    )
        return Dataset.from_list([{"audio": row["audio"], "labels": self.label_value(row, context)} for row in rows])

    def label_value(self, row: Row, context: TaskContext) -> int | list[int]:
        """A row's label, or its sequence of labels, as ids."""
        raise NotImplementedError

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Reads, resamples and pads the clips of a batch, in the width of the model's weights."""
        import torch

        extractor = context.feature_extractor
        width = getattr(model, "dtype", None)
        start = getattr(getattr(model, "config", None), "decoder_start_token_id", None)

        def collate(features: list[Row]) -> dict[str, Any]:
            sounds = [_samples(row["audio"], extractor.sampling_rate, context.max_length) for row in features]
            batch = _extracted(extractor, sounds)
            name = "input_values" if "input_values" in batch else "input_features"
            if width is not None:
                batch[name] = batch[name].to(width)
            if "labels" not in features[0]:
                return batch
            labels = [row["labels"] for row in features]
            if isinstance(labels[0], int):
                return {**batch, "labels": torch.tensor(labels)}
            if context.head != "ctc":  # Whisper's tokenizer writes the start, which the model puts before labels itself
                labels = [ids[1:] if ids[:1] == [start] else ids for ids in labels]
            longest = max(map(len, labels))
            padded = [[*ids, *[IGNORED] * (longest - len(ids))] for ids in labels]
            return {**batch, "labels": torch.tensor(padded, dtype=torch.long)}

        return collate


def _samples(file: str, rate: int, longest: float) -> Any:
    import numpy as np

    samples = audio.load(file, rate, longest)
    return np.pad(samples, (0, max(0, round(SHORTEST_SECONDS * rate) - len(samples))))


def _extracted(extractor: Any, sounds: Sequence[Any]) -> dict[str, Any]:
    """What the model reads: padded to the longest clip, or to the one length that Whisper hears, without a mask."""
    padding = {} if hasattr(extractor, "chunk_length") else {"padding": True}
    batch = dict(extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt", **padding))
    if "input_values" not in batch:
        batch.pop("attention_mask", None)
    return batch


class SpokenClassification(SpeechTask):
    """One label a clip, in the column :attr:`target`: a file may hold several (who speaks, and which word)."""

    target: ClassVar[str] = "label"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "audio_classification", "encoder-decoder": "audio_classification"}

    def target_text(self, row: Row) -> str:
        """The label."""
        return str(row[self.target])

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Distinct labels of the rows."""
        return sorted_labels([row[self.target] for row in rows])

    def label_value(self, row: Row, context: TaskContext) -> int:
        """The label's id."""
        return label_id(row[self.target], context.labels)

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The label of the largest logit."""
        return [context.labels[int(logits.argmax())] for logits in predictions]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """The task's metrics."""
        return compute(self.metrics, predictions, [row[self.target] for row in rows])


class Transcription(SpeechTask):
    """A sequence of labels a clip: by CTC on an encoder, written by a decoder where there is one."""

    heads: ClassVar[Mapping[str, str]] = {"encoder": "ctc", "encoder-decoder": "speech_seq2seq"}
    higher_is_better = False
    closed_labels = False
    cuts_inputs = False
    default_labels: ClassVar[int] = 32
    default_max_length: ClassVar[int] = 30
    default_max_target_length: ClassVar[int] = 128
    #: what stands between two symbols where they are written as text
    joint: ClassVar[str] = ""

    def symbols(self, row: Row) -> list[str]:
        """What a row's clip says, as the symbols that a CTC head gives one after the other."""
        raise NotImplementedError

    def spelled(self, row: Row) -> str:
        """The same as a text, which a decoder writes."""
        return self.joint.join(self.symbols(row))

    def read(self, symbols: Sequence[str]) -> Any:
        """A prediction from the symbols that were heard."""
        return self.joint.join(symbol for symbol in symbols if symbol != UNKNOWN)

    def split(self, text: str) -> list[str]:
        """The symbols of a text that a decoder wrote."""
        return text.split(self.joint) if self.joint else list(text)

    def target_text(self, row: Row) -> str:
        """What is said."""
        return self.spelled(row)

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """The blank, every symbol of the rows, and one for symbols that come later."""
        return (BLANK, *sorted({symbol for row in rows for symbol in self.symbols(row)}), UNKNOWN)

    def label_value(self, row: Row, context: TaskContext) -> list[int]:
        """Ids of the symbols; for a decoder those of its tokenizer."""
        if context.head == "ctc":
            ids = {symbol: number for number, symbol in enumerate(context.labels)}
            return [ids.get(symbol, ids[UNKNOWN]) for symbol in self.symbols(row)]
        tokenizer = context.tokenizer
        room = context.max_target_length or None
        written = list(tokenizer(self.spelled(row), max_length=room, truncation=True).input_ids)
        end = tokenizer.eos_token_id
        return written if end is None or written[-1:] == [end] else [*written, end]

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """The clips alone: a loss on them would be read by nobody, and clips to be transcribed have none."""
        return self.encode_train(rows, context).select_columns(["audio"])

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The best symbol at each position of the clip, repeats and blanks taken out; or the text that was written."""
        if context.head != "ctc":
            kept = [[int(token) for token in ids if token >= 0] for ids in predictions]
            texts = context.tokenizer.batch_decode(kept, skip_special_tokens=True)
            return [self.read(self.split(text.strip())) for text in texts]
        found = []
        for row, logits in zip(rows, predictions, strict=True):
            lasts = min(max(audio.seconds(row["audio"]), SHORTEST_SECONDS), context.max_length)
            heard = logits.argmax(-1)[: context.audio.positions(lasts) if context.audio else None]
            changed = [int(now) for now, before in zip(heard, [-1, *heard[:-1]], strict=True) if now != before]
            found.append(self.read([context.labels[label] for label in changed if 0 < label < len(context.labels)]))
        return found

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """The task's metrics against what was said."""
        return compute(self.metrics, predictions, [self.read(self.symbols(row)) for row in rows])
