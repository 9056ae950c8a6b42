"""The shipped records: all of them read, none lost on the way from the printed tables."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from peftselect import vocabulary
from peftselect.facts import data_regime
from peftselect.features import observations
from peftselect.importing import peft_project, tables
from peftselect.plugin_manager import host
from peftselect.record import RunRecord
from peftselect.results import shipped_records

SHARED = Path(__file__).parents[2] / "shared"
RECORDS = shipped_records(host())
THESIS = [record for record in RECORDS if record.source.startswith("thesis")]
#: numbers printed in each table
PRINTED = {
    "2.5": 60, "2.6": 25, "2.7": 338, "2.8": 176, "2.9": 80, "2.10": 64,
    "2.11": 35, "2.12": 56, "2.13": 30, "4.2": 60, "4.3": 10, "4.4": 4,
}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    """Rows of a table of the shared folder; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_printed_number_is_counted() -> None:
    counted = Counter[str]()
    for record in THESIS:
        counted[record.source.split()[2]] += len(record.scores) + len(record.measured)
    assert counted == PRINTED


def test_ids_are_unique_and_what_the_files_say() -> None:
    assert len(RECORDS) > 800
    assert len({record.id for record in RECORDS}) == len(RECORDS)
    assert all(RunRecord.from_json(record.to_json()) == record for record in RECORDS)


def test_records_speak_our_words() -> None:
    for record in RECORDS:
        problem = record.problem
        assert problem["regime"] in ("low", "medium", "high"), record.id
        assert problem.get("scale", "fraction") in ("percent", "fraction")
        assert problem["family"], record.id
        assert problem.get("model_type"), record.id
        if examples := problem.get("num_train_examples"):
            assert problem["regime"] == data_regime(examples)


def test_fractions_are_fractions() -> None:
    for record in RECORDS:
        if record.problem.get("scale", "fraction") == "fraction":
            for metric, score in record.scores.items():
                lowest = -1 if metric in ("pearson", "spearman", "matthews_correlation") else 0
                assert lowest <= score.value <= 1, (record.id, metric)


def test_the_thesis_files_are_what_the_script_writes() -> None:
    found = tables.convert(rows("thesis/results.csv"))
    assert {record.id for records in found.values() for record in records} == {record.id for record in THESIS}


def test_every_value_of_the_csv_is_in_the_records() -> None:
    left = Counter[tuple[object, ...]]()
    for record in THESIS:
        about = (record.candidate["method_as_written"], record.problem["dataset"], record.problem["model"])
        for metric, score in record.scores.items():
            left[(record.source.split()[2], *about, metric, score.value, score.std)] += 1
        for name, value in record.measured.items():
            left[(record.source.split()[2], *about, name, value, None)] += 1
    given = rows("thesis/results.csv")
    for row in given:
        metric, value = row["metric"], float(row["value"])
        deviation = float(row["std"]) if row["std"] else None
        if metric in tables.MEASUREMENTS:
            metric, factor = tables.MEASUREMENTS[metric]
            value = round(value * factor, 6)
        key = (row["table"], row["method_as_written"], row["dataset"], row["model"], metric, value, deviation)
        assert left[key] > 0, row
        left[key] -= 1
    assert len(given) == 938
    assert sum(left.values()) == 0


def test_the_peft_projects_runs_are_what_the_script_writes() -> None:
    rows("measurements/peft_metamathqa.csv")
    given = peft_project.read_summary(SHARED / "measurements" / "peft_metamathqa.csv")
    shipped = [record for record in RECORDS if record.source == peft_project.SOURCE]
    assert [record.id for record in given] == [record.id for record in shipped]


def test_a_run_of_the_peft_project() -> None:
    record = next(item for item in RECORDS if item.note == "lora--llama-3.2-3B-rank32")
    assert record.candidate["hyperparameters"]["r"] == 32
    assert record.candidate["recipe"]["precision"] == "bf16"
    assert record.measured["train_seconds"] > 100
    assert 0.4 < record.scores["accuracy"].value < 0.6


def test_what_is_no_choice_of_a_method_is_not_learned_from() -> None:
    learned = observations(RECORDS)
    assert not {item.method for item in learned} & tables.BASELINES
    assert not {item.cell.source.split()[2] for item in learned if item.cell.source.startswith("thesis")} & {
        "2.10", "4.2", "4.3", "4.4",
    }  # fmt: skip
    assert not any("average_" in item.cell.dataset and item.cell.task == "aggregate" for item in learned)
    assert len({item.cell for item in learned}) >= 78


@pytest.mark.parametrize(
    ("task_type", "dataset", "task", "family"),
    [
        ("nli", "rte", "classification", "classification"),
        ("similarity", "stsb", "similarity", "similarity"),
        ("similarity", "mrpc", "classification", "classification"),
        ("commonsense", "copa", "multiple_choice", "multiple_choice"),
        ("asr", "fleurs", "speech_recognition", "speech"),
        ("code_summarization", "kafka", "code_summarization", "generation"),
    ],
)
def test_published_task_types_in_our_words(task_type: str, dataset: str, task: str, family: str) -> None:
    assert vocabulary.task_name(task_type, dataset) == task
    assert vocabulary.task_family(task) == family


def test_published_names_in_our_words() -> None:
    assert vocabulary.method_name("MHM") == "mam_adapter"
    assert vocabulary.method_name("lora") == "lora"
    assert vocabulary.metric_name("matthews") == "matthews_correlation"
    assert vocabulary.model_facts("RoBERTa-base") == {"model_type": "roberta", "architecture": "encoder"}
    assert vocabulary.model_facts("nobody") == {}
