"""Every registered task from data to predictions: read, recommend, run, score, reload, predict the same again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect import Task, TaskContext
from peftselect.plugin_manager import host
from tests.samples import SAMPLES

ALL = sorted(host().tasks().values(), key=lambda task: task.name)
#: the others are advised on alone
TASKS = [task for task in ALL if not task.elsewhere]
TINY = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "t5"}
HEARING = {"encoder": "wav2vec2", "encoder-decoder": "whisper"}
#: every kind of model that a task can be run on
WAYS = [(task, architecture) for task in TASKS for architecture in sorted(task.heads)]
IDS = [f"{task.name}-{architecture}" for task, architecture in WAYS]


def test_there_are_tasks_and_each_has_a_sample() -> None:
    assert len(TASKS) >= 14
    assert {task.name for task in ALL} == set(SAMPLES)


def write(file: Path, task: Task, numbers: range) -> Path:
    file.write_text("".join(json.dumps(SAMPLES[task.name](number)) + "\n" for number in numbers))
    return file


def predict(result: Any, order: dict[str, Any], plan: Any) -> list[Any]:
    """What the written output predicts when it is loaded by the code that the run gave back."""
    from peftselect.training import trainer
    from peftselect.training.evaluation import Evaluation

    loaded: dict[str, Any] = {}
    exec(result.snippet, loaded)
    task, shape, recipe = plan.problem.task, plan.problem.shape, plan.chosen.candidate.recipe
    context = TaskContext(
        loaded.get("tokenizer"), shape.architecture, shape.head.kind, recipe.max_length, recipe.max_target_length,
        plan.splits.labels, feature_extractor=loaded.get("feature_extractor"), audio=shape.audio,
    )  # fmt: skip
    arguments = trainer.training_arguments(
        recipe, order["output"] / "scratch", shape.head.kind, steps=1, epochs=1, mixed=None, seed=0, cpu=True,
        generates=task.generates(shape.head.kind),
    )  # fmt: skip
    model = loaded["model"]
    runner = trainer.make_trainer(
        model,
        arguments,
        task.collator(context, model),
        shape.head.kind,
        tokenizer=context.tokenizer or context.feature_extractor,
        objective=task.objective(context),
    )
    return Evaluation(task, plan.splits.test, context)(runner).predictions


def go_through(task: Task, architecture: str, model: Path, folder: Path) -> None:
    length = 2 if task.modality == "speech" else 48
    order: dict[str, Any] = {
        "train": write(folder / "train.jsonl", task, range(16)),
        "evaluation": write(folder / "evaluation.jsonl", task, range(16, 22)),
        "test": write(folder / "test.jsonl", task, range(22, 28)),
        "max_length": length,
        "method": "lora",
        "device": "cpu",
        "output": folder / "out",
        "settings": {"num_train_epochs": 2, "precision": "fp32"},
    }
    if task.generates(task.heads[architecture]):
        order["max_target_length"] = 8
    answer = peftselect.recommend(task.name, str(model), train=order["train"], max_length=length)
    assert answer.recommended is not None
    assert answer.problem.shape.head.kind == task.heads[architecture]
    plan = peftselect.plan_run(task.name, str(model), **order)
    result = peftselect.run(task.name, str(model), **order)
    assert set(result.record.scores) == set(result.record.baseline) == set(task.metrics)
    assert result.record.measured["trainable_parameters"] == result.record.predicted["trainable_parameters"]
    losses = [
        entry["loss"] for entry in json.loads((result.output / "metrics.json").read_text())["history"]["training"]
    ]
    assert losses and all(loss == loss for loss in losses)
    lines = (result.output / "predictions.jsonl").read_text().splitlines()
    kept = [json.loads(line)["prediction"] for line in lines]
    assert len(kept) == 6
    again = predict(result, order, plan)
    assert again == pytest.approx(kept, rel=1e-4) if isinstance(kept[0], float) else again == kept


@pytest.mark.parametrize(("task", "architecture"), WAYS, ids=IDS)
def test_a_task_goes_from_data_to_predictions(
    task: Task, architecture: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    kinds = HEARING if task.modality == "speech" else TINY
    go_through(task, architecture, tiny_models(kinds[architecture]), tmp_path)
