"""Convert the tables of R. Negi's thesis (a long CSV, one row a number) into run records, one file a table.

    python -m peftselect.benchmarks.import_thesis results.csv [FOLDER]

Writes ``benchmarks/results/thesis/table_2_5.jsonl`` and so on. Scores keep the table's own scale (``problem.scale``
says whether a table prints fractions or percentages); losses and training hours are measurements, not scores.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from peftselect import vocabulary
from peftselect.errors import DataError, InputError
from peftselect.facts import data_regime
from peftselect.record import RunRecord, Score

PAPERS = {
    "18": "Liu et al. 2023",
    "42": "Pu et al. 2023",
    "43": "Feng and Narayanan 2023, PEFT-SER",
    "44": "Xu et al. 2023",
    "45": "Jin et al. 2023, UPL",
    "46": "Fu et al. 2023",
    "47": "Li et al. 2023, SURE",
    "48": "Chen et al. 2022, SUPERB",
}
#: printed beside fine-tuning methods but not methods to choose from: no fine-tuning, or tuning of everything by prompts
BASELINES = {"zero_shot_prompting", "in_context_learning", "lm_bff", "no_finetuning"}
MEASUREMENTS = {
    "training_time_hours": ("train_seconds", 3600.0),
    "training_loss": ("training_loss", 1.0),
    "validation_loss": ("validation_loss", 1.0),
}
REGIMES = {"few_shot": "low", "full": "high"}
Row = dict[str, str]
COLUMNS = (
    "table", "reference", "model", "model_params", "modality", "task_type", "dataset", "method_as_written", "method",
    "data_regime", "trainable_params", "trainable_percent", "metric", "value", "std", "higher_is_better", "n_train",
)  # fmt: skip


def source(row: Row) -> str:
    """Where a number is printed, and which paper it was taken from."""
    where = "section" if row["table"].startswith("4.") else "table"
    paper = PAPERS.get(row["reference"])
    return f"thesis {where} {row['table']}" + (f" ({paper})" if paper else "")


def scale(row: Row, fractions: frozenset[tuple[str, str]] = frozenset()) -> str:
    """Table 2.5, the error rates of 2.11 and chapter 4's ROUGE are fractions, and so are the (table, metric) pairs
    named; everything else is a percentage."""
    fraction = row["table"] in ("2.5", "4.2") or (row["table"] == "2.11" and row["metric"] == "wer")
    fraction = fraction or (row["table"], row["metric"]) in fractions
    return "fraction" if fraction else "percent"


def convert(rows: list[Row], fractions: frozenset[tuple[str, str]] = frozenset()) -> dict[str, list[RunRecord]]:
    """Records by table: one for each run, which is what differs in anything but the metric."""
    runs: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key = ("table", "model", "task_type", "dataset", "method_as_written", "method", "data_regime")
        runs[(*(row[name] for name in key), scale(row, fractions))].append(row)
    tables: dict[str, list[RunRecord]] = defaultdict(list)
    for key_of_run, run in runs.items():
        tables[run[0]["table"]].append(record(run, key_of_run[-1]))
    return tables


def record(run: list[Row], printed_as: str) -> RunRecord:
    """One run's rows (they differ in metric and value) as a record; ``printed_as``: "fraction" or "percent"."""
    first = run[0]
    scores, measured = {}, {}
    for row in run:
        metric, value = row["metric"], float(row["value"])
        if metric in MEASUREMENTS:
            name, factor = MEASUREMENTS[metric]
            measured[name] = round(value * factor, 6)
        else:
            deviation = float(row["std"]) if row["std"] else None
            scores[vocabulary.metric_name(metric)] = Score(value, deviation, row["higher_is_better"] == "true")
    return RunRecord(
        source=source(first),
        status="ok",
        problem=_problem(first, printed_as),
        candidate=_candidate(first),
        metric=next(iter(scores), None),
        scores=scores,
        measured=measured,
    )


def _problem(row: Row, printed_as: str) -> dict[str, Any]:
    task = vocabulary.task_name(row["task_type"], row["dataset"])
    examples = int(row["n_train"]) if row["n_train"] else None
    regime = row["data_regime"]
    facts = {
        "task": task,
        "family": vocabulary.task_family(task) or task,
        "task_as_written": row["task_type"],
        "modality": row["modality"],
        "dataset": row["dataset"],
        "regime": data_regime(examples) if examples else REGIMES.get(regime, regime),
        "regime_as_written": regime,
        "num_train_examples": examples,
        "model": row["model"],
        **vocabulary.model_facts(row["model"]),
        "total_parameters": int(row["model_params"]) if row["model_params"] else None,
        "scale": printed_as,
        "aggregate": True if row["task_type"] == "aggregate" else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _candidate(row: Row) -> dict[str, Any]:
    share = row["trainable_percent"]
    method = vocabulary.method_name(row["method"])
    facts = {
        "method": method,
        "method_as_written": row["method_as_written"],
        "trainable_parameters": int(row["trainable_params"]) if row["trainable_params"] else None,
        "trainable_percent": float(share) if re.fullmatch(r"[\d.]+", share) else None,
        "trainable_percent_as_written": share if "-" in share else None,
        "baseline": True if method in BASELINES else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def read_csv(file: Path) -> list[RunRecord]:
    """The records of a table in this form; InputError and DataError say what is wrong with it."""
    hint = "a CSV with the columns " + ", ".join(COLUMNS)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})", hint) from error
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise DataError(f"{file}: there is no column {missing[0]!r}", hint)
    for number, row in enumerate(rows, 2):
        try:
            float(row["value"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{file}, line {number}: value {row['value']!r} is not a number", hint) from error
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["table"], row["metric"]].append(abs(float(row["value"])))
    # a table of shares prints none above 1, one of percentages prints none so low
    fractions = frozenset(key for key, printed in values.items() if max(printed) <= 1)
    return [found for table in convert(rows, fractions).values() for found in table]


def write(tables: dict[str, list[RunRecord]], folder: Path) -> None:
    """One JSON-lines file a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, records in sorted(tables.items()):
        lines = [json.dumps(item.to_json(), ensure_ascii=False, sort_keys=True) for item in records]
        name = f"table_{table.replace('.', '_')}.jsonl"
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "results" / "thesis"
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as stream:
        write(convert(list(csv.DictReader(stream))), target)
