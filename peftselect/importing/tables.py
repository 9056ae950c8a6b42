"""Long tables (a CSV, one row a number) as run records: the thesis's tables, and anybody's in the same columns."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from peftselect import vocabulary
from peftselect.errors import DataError, InputError
from peftselect.facts import data_regime
from peftselect.record import RunRecord, Score

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    "table", "reference", "model", "model_params", "modality", "task_type", "dataset", "method_as_written", "method",
    "data_regime", "trainable_params", "trainable_percent", "metric", "value", "std", "higher_is_better", "n_train",
)  # fmt: skip
HINT = "a table has the columns " + ", ".join(COLUMNS)
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
#: the thesis's tables with the reference that each cites; a row with another pair is of somebody else's table
THESIS = {
    "2.5": "42", "2.6": "43", "2.7": "44", "2.8": "45", "2.9": "46", "2.10": "46", "2.11": "47", "2.12": "48",
    "2.13": "18", "4.2": "thesis", "4.3": "thesis", "4.4": "thesis",
}  # fmt: skip
#: printed beside fine-tuning methods but not methods to choose from: no fine-tuning, or tuning of everything by prompts
BASELINES = {"zero_shot_prompting", "in_context_learning", "lm_bff", "no_finetuning"}
#: what a table prints as a metric and a record keeps as a measurement, with the factor to its unit
MEASUREMENTS = {
    "training_time_hours": ("train_seconds", 3600.0),
    "training_loss": ("training_loss", 1.0),
    "validation_loss": ("validation_loss", 1.0),
    "train_seconds": ("train_seconds", 1.0),
    "peak_memory_bytes": ("peak_memory_bytes", 1.0),
    "adapter_bytes": ("adapter_bytes", 1.0),
}
_COUNTS = ("model_params", "trainable_params", "n_train")
_REGIMES = {"few_shot": "low", "full": "high"}
_FRACTIONS_OF_THE_THESIS = ("2.5", "4.2")
#: what tells runs of one table apart
_RUN = (
    "table", "reference", "model", "model_params", "task_type", "dataset", "method_as_written", "method",
    "data_regime", "trainable_params", "trainable_percent", "n_train",
)  # fmt: skip
Row = dict[str, str]
Pairs = frozenset[tuple[str, str]]


class _Found(NamedTuple):
    line: int
    row: Row


def read_table(
    file: Path,
    *,
    names: Callable[[str], str] = str,
    repeats_are_runs: bool = False,
    broken: list[DataError] | None = None,
) -> list[RunRecord]:
    """The records of a table in these columns, one for each run: what differs in anything but the metric.

    ``names`` turns a method's name into the registered one. Two values for one metric of one run contradict each other,
    unless ``repeats_are_runs`` takes them for repeated runs. InputError where the file cannot be read, DataError (or an
    entry in ``broken``, and the row is left out) names the line that is wrong.
    """
    found: list[_Found] = []
    for item in _rows(file):
        try:
            _check(item.row, f"{file}, line {item.line}")
        except DataError as error:
            if broken is None:
                raise
            broken.append(error)
        else:
            item.row["method"] = names(vocabulary.method_name(item.row["method"]))
            found.append(item)
    runs = _runs(found, str(file), repeats_are_runs, broken)
    fractions = _fractions(item.row for item in found)
    return [record(rows, scale(rows[0], fractions), source(rows[0], file.stem)) for rows in runs]


def _rows(file: Path) -> list[_Found]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = [_Found(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})", HINT) from error
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise DataError(f"{file}: there is no column {missing[0]!r}", HINT)
    return rows


def _check(row: Row, where: str) -> None:
    """Raise DataError where a row is cut off or holds what is no number."""
    if None in row:
        raise DataError(f"{where}: there are more cells than columns", "quote cells that hold commas")
    if cut := [name for name in COLUMNS if row[name] is None]:
        raise DataError(f"{where}: the row ends before {cut[0]}", "the file seems to be cut off there")
    for name in ("model", "dataset", "task_type", "method", "metric"):
        if not row[name].strip():
            raise DataError(f"{where}: {name} is empty", HINT)
    if not row["value"].strip():
        raise DataError(f"{where}: {row['metric']} has no value", "leave out the row, or give its value")
    for name in ("value", "std", *_COUNTS):
        if row[name].strip() and not _is_number(row[name], whole=name in _COUNTS):
            raise DataError(f"{where}: {name} {row[name]!r} is not a number", "write plain digits, such as 0.912")
    if row["higher_is_better"].strip().lower() not in ("true", "false"):
        raise DataError(f"{where}: higher_is_better {row['higher_is_better']!r} is not known", "write true or false")


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        return math.isfinite(int(text) if whole else float(text))
    except ValueError:
        return False


def _runs(
    found: Iterable[_Found], file: str, repeats_are_runs: bool, broken: list[DataError] | None
) -> list[list[Row]]:
    """The rows of each run; equal rows count once, those that disagree are refused or begin another run."""
    lines: dict[tuple[str, ...], int] = {}
    values: dict[tuple[str, ...], list[str]] = defaultdict(list)
    runs: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for line, row in found:
        run = tuple(row[name].strip() for name in _RUN)
        number = (*run, vocabulary.metric_name(row["metric"]))
        seen = values[number]
        if row["value"] in seen:
            continue
        if seen and not repeats_are_runs:
            what = f"{row['metric']} of {row['method_as_written'] or row['method']} on {row['dataset']}"
            error = DataError(
                f"{file}, lines {lines[number]} and {line}: two values for {what}, {seen[0]} and {row['value']}",
                "leave one of them out",
            )
            if broken is None:
                raise error
            broken.append(error)
            continue
        lines.setdefault(number, line)
        seen.append(row["value"])
        runs[(*run, str(len(seen)))].append(row)
    return list(runs.values())


def _fractions(rows: Iterable[Row]) -> Pairs:
    """Tables and metrics printed as fractions: a table of shares prints none above 1."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["table"], row["metric"]].append(abs(float(row["value"])))
    return frozenset(key for key, printed in values.items() if max(printed) <= 1)


def convert(rows: Iterable[Row]) -> dict[str, list[RunRecord]]:
    """The thesis's rows as records by table."""
    runs: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        runs[(*(row[name] for name in _RUN), scale(row))].append(row)
    tables: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs.values():
        tables[run[0]["table"]].append(record(run, scale(run[0]), source(run[0])))
    return tables


def source(row: Row, name: str = "") -> str:
    """Where a number is printed, and which paper it was taken from; ``name`` is that of a file that is no thesis's."""
    table, reference = row["table"].strip(), row["reference"].strip()
    if THESIS.get(table) == reference:
        where = "section" if table.startswith("4.") else "table"
        paper = PAPERS.get(reference)
        return f"thesis {where} {table}" + (f" ({paper})" if paper else "")
    return ", ".join(filter(None, (name, table and f"table {table}"))) + (f" ({reference})" if reference else "")


def scale(row: Row, fractions: Pairs = frozenset()) -> str:
    """Table 2.5, the error rates of 2.11 and chapter 4's ROUGE are fractions, and so are the (table, metric) pairs
    named; everything else is a percentage."""
    fraction = row["table"] in _FRACTIONS_OF_THE_THESIS or (row["table"] == "2.11" and row["metric"] == "wer")
    fraction = fraction or (row["table"], row["metric"]) in fractions
    return "fraction" if fraction else "percent"


def record(run: list[Row], printed_as: str, where: str) -> RunRecord:
    """One run's rows (they differ in metric and value) as a record; ``printed_as``: "fraction" or "percent"."""
    first = run[0]
    scores, measured = {}, {}
    for row in run:
        metric, value = row["metric"], float(row["value"])
        if metric in MEASUREMENTS:
            name, factor = MEASUREMENTS[metric]
            measured[name] = round(value * factor, 6)
        else:
            deviation = float(row["std"]) if row["std"].strip() else None
            higher = row["higher_is_better"].strip().lower() == "true"
            scores[vocabulary.metric_name(metric)] = Score(value, deviation, higher)
    return RunRecord(
        source=where,
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
        "regime": data_regime(examples) if examples else _REGIMES.get(regime, regime),
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
