"""Multiple choice: which of several texts fits a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Objective, Row, Task, TaskContext
from peftselect.tasks._generation import encode_continuation, padded_sequences


class MultipleChoice(Task):
    """Each choice is scored with the question; the label is the index of the right one.

    A causal model learns to write the right choice after the question, and is asked for the mean log-likelihood of the
    tokens of each choice, so that longer choices are at no disadvantage.
    """

    name = "multiple_choice"
    title = "Multiple choice"
    aliases = ("multiple_choice_qa", "commonsense", "copa", "swag")
    family = "multiple_choice"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "multiple_choice", "decoder": "causal_lm"}
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

    def generates(self, head: str) -> bool:
        """Nothing is generated: choices are given."""
        return False

    def objective(self, context: TaskContext) -> Objective | None:
        """Causal models: the likelihood of each choice."""
        return Likelihood() if context.head == "causal_lm" else None

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """As in training; for causal models every choice after its question, ``row`` saying whose it is."""
        if context.head != "causal_lm":
            return self.encode_train(rows, context)
        from datasets import Dataset

        return Dataset.from_list(
            [
                {**_continued(row["question"], choice, context), "row": index}
                for index, row in enumerate(rows)
                for choice in row["choices"]
            ]
        )

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Question and choice, once for each choice; for causal models the right choice alone."""
        from datasets import Dataset

        if context.head == "causal_lm":
            right = [_continued(row["question"], row["choices"][row["label"]], context) for row in rows]
            return Dataset.from_list(right)
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
        Causal models get plain sequences.
        """
        import torch

        tokenizer = context.tokenizer
        if context.head == "causal_lm":
            return padded_sequences(tokenizer)

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
        """The index of the largest logit, or likelihood, among a row's own choices."""
        if context.head == "causal_lm":
            likelihoods: list[list[float]] = [[] for _ in rows]
            for index, value in zip(encoded["row"], predictions, strict=True):
                likelihoods[index].append(float(value))
            return [values.index(max(values)) for values in likelihoods]
        logits = predictions[0] if isinstance(predictions, tuple) else predictions
        return [int(scores[: len(row["choices"])].argmax()) for scores, row in zip(logits, rows, strict=True)]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Share of rows whose choice is right; a choice that repeats the right one's text is as right."""
        chosen = [_first_alike(row["choices"], choice) for choice, row in zip(predictions, rows, strict=True)]
        wanted = [_first_alike(row["choices"], row["label"]) for row in rows]
        return compute(self.metrics, chosen, wanted)


class Likelihood(Objective):
    """Mean log-likelihood of the labelled tokens of each sequence, over the whole vocabulary."""

    def predict(self, model: Any, inputs: dict[str, Any]) -> Any:
        """One number a sequence; positions that a method puts before the input are passed over."""
        import torch

        labels = inputs["labels"]
        logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        logits = logits[:, -labels.shape[1] :][:, :-1]
        wanted, asked = labels[:, 1:].clamp(min=0), labels[:, 1:] >= 0
        values = torch.log_softmax(logits.float(), -1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        return (values * asked).sum(1) / asked.sum(1).clamp(min=1)


def _continued(question: str, choice: str, context: TaskContext) -> Row:
    """Question and choice as one sequence of at most ``max_length``; the question gives way, the choice is whole."""
    answer = context.tokenizer(choice, add_special_tokens=False)["input_ids"]
    room = max(context.max_length - len(answer) - 1, 1)
    return encode_continuation(question + "\n", choice, replace(context, max_length=room))


def _first_alike(choices: Sequence[str], index: int) -> str:
    """Place of the first choice with the same text."""
    return str(list(choices).index(choices[index]))


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer multiple choice."""
    return (MultipleChoice,)
