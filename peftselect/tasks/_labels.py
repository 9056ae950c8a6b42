"""What tasks share whose answer is a label, a number or a choice on a whole input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.errors import DataError
from peftselect.task import Row, Task, TaskContext

CLASSIFIERS: Mapping[str, str] = {
    "encoder": "sequence_classification",
    "decoder": "sequence_classification",
    "encoder-decoder": "sequence_classification",
}
FIRST = ("sentence1", "premise", "question1", "text1", "first", "query", "sentence_1")
SECOND = ("sentence2", "hypothesis", "question2", "text2", "second", "passage", "sentence_2", "sentence")
ENCODERS = ("roberta-base", "distilroberta-base", "all-minilm-l6-v2")


class SequenceTask(Task):
    """One or two texts under a classification head."""

    heads: ClassVar[Mapping[str, str]] = CLASSIFIERS

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Token ids with a label each."""
        from datasets import Dataset

        texts = [self.input_texts(row) for row in rows]
        pairs = any(len(parts) > 1 for parts in texts)
        second = [parts[1] if len(parts) > 1 else "" for parts in texts] if pairs else None
        encoded = dict(
            context.tokenizer(
                [parts[0] for parts in texts], second, max_length=context.max_length, truncation="longest_first"
            )
        )
        return Dataset.from_dict({**encoded, "labels": [self.label_value(row, context) for row in rows]})

    def label_value(self, row: Row, context: TaskContext) -> int | float | list[float]:
        """A row's label as the head wants it."""
        return label_id(row["label"], context.labels)

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Pads to the longest of the batch; a decoder that classifies looks for the last real token."""
        from transformers import DataCollatorWithPadding

        pad = DataCollatorWithPadding(context.tokenizer)
        return lambda features: dict(pad(features))


def label_id(label: str, labels: Sequence[str]) -> int:
    """Id of a label; DataError for one that the training rows do not have."""
    try:
        return labels.index(label)
    except ValueError:
        known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise DataError(f"label {label!r} is not among the training labels", f"they are: {known}") from None


def sorted_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Distinct labels: numbers in their order, anything else by name."""
    found = set(labels)
    if all(label.lstrip("-").isdigit() for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))
