"""Classification of one text or of a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.method import PROMPTED
from peftselect.metrics import compute
from peftselect.task import Column, Objective, Row, Task, TaskContext
from peftselect.tasks._labels import ENCODERS, FIRST, SECOND, SequenceTask, sorted_labels
from peftselect.tasks._prompted import FillMask, encode


class Classification(SequenceTask):
    """One label a row; a second text makes it a pair (inference, paraphrase, question and passage)."""

    name = "classification"
    title = "Classification"
    aliases = (
        "text_classification", "sequence_classification", "sentiment", "topic_classification", "nli", "pair",
        "natural_language_inference", "intent", "intent_classification", "intent_detection", "acceptability",
    )  # fmt: skip
    family = "classification"
    columns = (
        Column("text", "text", ("text_a", *FIRST, "question", "sentence", "content", "review", "utterance", "input")),
        Column("text_pair", "text", ("text_b", *SECOND), required=False),
        Column("label", "label", ("labels", "label_text", "category", "class", "sentiment", "intent", "target")),
    )
    other_heads: ClassVar[Mapping[str, tuple[str, ...]]] = {"encoder": ("masked_lm",)}
    metrics = ("accuracy", "f1", "precision", "recall", "matthews_correlation")
    default_models = ENCODERS
    default_max_length = 256

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The text, and the second one where there is one."""
        return (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)

    def target_text(self, row: Row) -> str:
        """The label."""
        return str(row["label"])

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Distinct labels of the rows."""
        return sorted_labels([row["label"] for row in rows])

    def objective(self, context: TaskContext) -> Objective | None:
        """Words at a mask, where a masked language model is asked."""
        return FillMask(context) if context.head in PROMPTED else None

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Token ids with a label each, of prompts where a masked language model is asked."""
        return encode(self, rows, context) if context.head in PROMPTED else super().encode_train(rows, context)

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The label of the largest logit."""
        return [context.labels[int(logits.argmax())] for logits in first_array(predictions)]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Accuracy and its kin; precision, recall and F1 are means over the labels."""
        return compute(self.metrics, predictions, [row["label"] for row in rows])


def first_array(predictions: Any) -> Any:
    """Logits; encoder-decoders give further outputs beside them."""
    return predictions[0] if isinstance(predictions, tuple) else predictions


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer classification."""
    return (Classification,)
