"""Similarity of two texts as a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext
from peftselect.tasks._labels import ENCODERS, FIRST, SECOND, SequenceTask
from peftselect.tasks.classification import first_array


class Similarity(SequenceTask):
    """Regression on a pair; scored by correlation, so the scale of the numbers does not matter."""

    name = "similarity"
    title = "Similarity"
    aliases = ("semantic_similarity", "sts", "stsb", "regression", "textual_similarity")
    family = "similarity"
    columns = (
        Column("text", "text", ("text_a", *FIRST)),
        Column("text_pair", "text", ("text_b", *SECOND)),
        Column("label", "number", ("score", "similarity", "similarity_score", "relatedness_score", "labels")),
    )
    metrics = ("pearson", "spearman")
    default_models = ENCODERS
    default_max_length = 256

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """Both texts."""
        return (row["text"], row["text_pair"])

    def target_text(self, row: Row) -> str:
        """The number."""
        return f"{row['label']:g}"

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """One output: the number."""
        return ("similarity",)

    def label_value(self, row: Row, context: TaskContext) -> int | float:
        """The number itself."""
        return float(row["label"])

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The single output."""
        return [float(output.reshape(-1)[0]) for output in first_array(predictions)]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Correlations."""
        return compute(self.metrics, predictions, [row["label"] for row in rows])


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer similarity."""
    return (Similarity,)
