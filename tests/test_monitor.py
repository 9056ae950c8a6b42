"""Holding new rows against a run: the same, longer, about something else, answered worse."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from tests.test_run import arguments, make_row, write_rows
from tests.test_serving import said

#: two halves of one kind of rows, drawn by lot
THEN = sorted(random.Random(1).sample(range(400, 640), 120))
NOW = sorted(set(range(400, 640)) - set(THEN))


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON-lines file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def run_folder(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learnt its task, scored on 120 rows."""
    folder = tmp_path_factory.mktemp("monitored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTSELECT_HOME", str(folder / "home"))
        settings = {"num_train_epochs": 8, "learning_rate": 3e-3}
        order = arguments(folder, "classification", tiny_models("bert"), "full_finetuning", settings=settings)
        write_rows(Path(order["train"]), "classification", range(100, 260))
        write(Path(order["test"]), [make_row("classification", number) for number in THEN])
        return peftselect.run(**order).output


def monitored(
    capsys: pytest.CaptureFixture[str], folder: Path, rows: list[dict[str, Any]], file: Path
) -> dict[str, Any]:
    """What monitoring says of the rows."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return json.loads(said(capsys, "monitor", folder, "--data", file, "--json"))


def changed(found: dict[str, Any]) -> set[str]:
    """Names of the checks that call out."""
    return {check["name"] for check in found["checks"] if check["changed"]}


def fresh() -> list[dict[str, Any]]:
    """Labelled rows like those that the run was scored on."""
    return [make_row("classification", number) for number in NOW]


def test_more_of_the_same_is_fine(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = monitored(capsys, run_folder, fresh(), tmp_path / "now.jsonl")
    assert found["verdict"] == "fine"
    assert {check["name"] for check in found["checks"]} == {"length", "words", "score", "predictions"}
    assert changed(found) == set()


def test_longer_texts_of_other_words_are_to_be_looked_at(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"text": f"dog cat runs sleeps {row['text']} dog {row['text']}"} for row in fresh()]
    found = monitored(capsys, run_folder, asked, tmp_path / "now.jsonl")
    assert found["verdict"] == "look"
    assert changed(found) == {"length", "words"}
    assert "characters in the median" in found["because"]


def test_logged_predictions_that_tip_over_are_to_be_looked_at(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = [
        {"adapter": "x", "text": row["text"], "prediction": "positive" if number % 8 else "negative"}
        for number, row in enumerate(fresh())
    ]
    found = monitored(capsys, run_folder, logged, tmp_path / "now.jsonl")
    assert found["verdict"] == "look"
    assert changed(found) == {"predictions"}


def test_a_log_of_several_adapters_is_that_of_this_one(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [{"adapter": run_folder.name, "text": row["text"], "prediction": row["label"]} for row in fresh()]
    others = [{"adapter": "summaries", "source": "a long text " * 50, "prediction": "long"} for _ in own]
    found = monitored(capsys, run_folder, [*others[:9], *own, *others[9:]], tmp_path / "now.jsonl")
    assert (found["verdict"], found["rows"]) == ("fine", len(own))


def test_worse_answers_mean_training_anew(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"positive": "negative", "negative": "positive"}
    rows = [
        {**row, "label": other[row["label"]] if number % 3 == 0 else row["label"]} for number, row in enumerate(fresh())
    ]
    found = monitored(capsys, run_folder, rows, tmp_path / "now.jsonl")
    assert found["verdict"] == "retrain"
    assert found["because"].startswith("accuracy is 0.6")
    assert "retrain: accuracy is 0.6" in said(capsys, "monitor", run_folder, "--data", tmp_path / "now.jsonl")


def test_too_few_rows_say_nothing(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "few.jsonl", "classification", range(5))
    text = said(capsys, "monitor", run_folder, "--data", data, code=2)
    assert "holds 5 rows, the run was scored on 120: too few to compare" in text
