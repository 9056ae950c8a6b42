"""Classification with any number of labels a text: topics, emotions, intents that occur together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext
from peftselect.tasks._labels import ENCODERS, SequenceTask, label_id, sorted_labels
from peftselect.tasks.classification import first_array


class MultiLabel(SequenceTask):
    """Each label is decided by itself (binary cross-entropy); a logit above 0 gives it."""

    name = "multi_label"
    title = "Multi-label classification"
    aliases = ("multi_label_classification", "multilabel", "multilabel_classification", "tags_of_text")
    family = "classification"
    problem_type = "multi_label_classification"
    columns = (
        Column("text", "text", ("sentence", "content", "review", "utterance", "document", "input")),
        Column("labels", "labels", ("label", "tags", "topics", "categories", "emotions", "classes")),
    )
    metrics = ("f1_micro", "f1_macro", "subset_accuracy")
    default_models = ENCODERS
    default_max_length = 256

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The text."""
        return (row["text"],)

    def target_text(self, row: Row) -> str:
        """The labels, joined."""
        return ", ".join(row["labels"])

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Distinct labels of the rows."""
        return sorted_labels([label for row in rows for label in row["labels"]])

    def label_value(self, row: Row, context: TaskContext) -> list[float]:
        """1 for each label that the text has, 0 for the others."""
        own = {label_id(label, context.labels) for label in row["labels"]}
        return [float(index in own) for index in range(len(context.labels))]

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The labels whose logits are above 0."""
        return [
            [name for name, logit in zip(context.labels, logits, strict=True) if logit > 0]
            for logits in first_array(predictions)
        ]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """F1 over labels and rows, and rows that are right whole."""
        return compute(self.metrics, predictions, [row["labels"] for row in rows])


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer multi-label classification."""
    return (MultiLabel,)
