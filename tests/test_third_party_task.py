"""A task of a third party, made of public names alone: offered by the hook, advised on and run like ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import peftselect
from peftselect import Column, Task, hookimpl
from peftselect.plugin_manager import PluginHost


class Urgency(Task):
    """Whether a message is urgent."""

    name = "urgency"
    title = "Urgency of messages"
    aliases = ("triage",)
    family = "classification"
    heads: ClassVar = {"encoder": "sequence_classification"}
    columns = (Column("message", "text", ("mail",)), Column("urgent", "label"))
    metrics = ("accuracy",)
    default_models = ("distilroberta-base",)

    def input_texts(self, row: Any) -> tuple[str, ...]:
        return (row["message"],)

    def target_text(self, row: Any) -> str:
        return str(row["urgent"])

    def label_names(self, rows: Any) -> tuple[str, ...]:
        return tuple(sorted({row["urgent"] for row in rows}))

    def encode_train(self, rows: Any, context: Any) -> Any:
        from datasets import Dataset

        encoded = dict(context.tokenizer([row["message"] for row in rows], truncation=True, max_length=16))
        return Dataset.from_dict({**encoded, "labels": [context.labels.index(row["urgent"]) for row in rows]})

    def collator(self, context: Any, model: Any = None) -> Any:
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(context.tokenizer)

    def decode(self, predictions: Any, rows: Any, encoded: Any, context: Any) -> list[Any]:
        return [context.labels[int(row.argmax())] for row in predictions]

    def score(self, predictions: Any, rows: Any) -> dict[str, float]:
        right = [said == row["urgent"] for said, row in zip(predictions, rows, strict=True)]
        return {"accuracy": sum(right) / len(right)}


class Plugin:
    """What a distribution would register."""

    @hookimpl
    def register_tasks(self) -> list[type[Task]]:
        return [Urgency]


def test_a_third_party_s_task_goes_from_data_to_predictions(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    plugins = PluginHost.load(external=False)
    plugins.manager.register(Plugin())
    task = plugins.task("triage")
    rows = [{"mail": f"w{n} w{n % 9} {'good' if n % 2 else 'bad'}", "urgent": n % 2} for n in range(48)]
    file = tmp_path / "mails.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(tiny_models("bert"))
    assert peftselect.recommend(task, model, train=file).recommended is not None
    result = peftselect.run(
        task, model, train=file, method="lora", device="cpu", output=tmp_path / "out",
        settings={"num_train_epochs": 12, "learning_rate": 1e-2, "precision": "fp32"},
    )  # fmt: skip
    assert result.record.problem["task"] == "urgency"
    assert result.record.scores["accuracy"].value > 0.9
