"""Multiple choice: which of several texts fits a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext


class MultipleChoice(Task):
    """Each choice is scored with the question; the label is the index of the right one."""

    name = "multiple_choice"
    title = "Multiple choice"
    aliases = ("multiple_choice_qa", "commonsense", "copa", "swag")
    family = "multiple_choice"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "multiple_choice"}
    columns = (
        Column("question", "text", ("premise", "prompt", "startphrase", "context", "sent1", "query")),
        Column("choices", "choices", ("options", "endings", "answers")),
        Column("label", "index", ("answer", "gold", "correct", "labels")),
    )
    metrics = ("accuracy",)
    default_models = ("roberta-base", "distilbert-base-uncased", "all-minilm-l6-v2")
    default_max_length = 128

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The question and the longest choice, which is what is encoded at once."""
        return (row["question"], max(row["choices"], key=len))

    def target_text(self, row: Row) -> str:
        """The right choice."""
        return str(row["choices"][row["label"]])

    def check_row(self, row: Row) -> str | None:
        """The label must point at a choice."""
        count = len(row["choices"])
        return None if row["label"] < count else f"label {row['label']} of {count} choices (they count from 0)"

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Question and choice, once for each choice."""
        from datasets import Dataset

        encoded = []
        for row in rows:
            pairs = context.tokenizer(
                [row["question"]] * len(row["choices"]),
                row["choices"],
                truncation="longest_first",
                max_length=context.max_length,
            )
            encoded.append({**dict(pairs), "labels": row["label"]})
        return Dataset.from_list(encoded)

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Pads every choice to the same length, and rows to the same number of choices: (batch, choices, length).

        A row that has fewer choices than its neighbours repeats its last one; the prediction looks at its own only.
        """
        import torch

        tokenizer = context.tokenizer

        def collate(features: list[Row]) -> dict[str, Any]:
            keys = [key for key in features[0] if key in ("input_ids", "attention_mask", "token_type_ids")]
            most = max(len(feature["input_ids"]) for feature in features)
            flat = [
                {key: feature[key][min(at, len(feature["input_ids"]) - 1)] for key in keys}
                for feature in features
                for at in range(most)
            ]
            batch = {
                key: value.view(len(features), most, -1)
                for key, value in tokenizer.pad(flat, return_tensors="pt").items()
            }
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
            return batch

        return collate

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The index of the largest logit among a row's own choices."""
        logits = predictions[0] if isinstance(predictions, tuple) else predictions
        return [int(scores[: len(row["choices"])].argmax()) for scores, row in zip(logits, rows, strict=True)]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Share of rows whose choice is right; a choice that repeats the right one's text is as right."""
        chosen = [_first_alike(row["choices"], choice) for choice, row in zip(predictions, rows, strict=True)]
        wanted = [_first_alike(row["choices"], row["label"]) for row in rows]
        return compute(self.metrics, chosen, wanted)


def _first_alike(choices: Sequence[str], index: int) -> str:
    """Place of the first choice with the same text."""
    return str(list(choices).index(choices[index]))


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer multiple choice."""
    return (MultipleChoice,)
