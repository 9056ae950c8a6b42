"""From run records to what a predictor learns from: one observation for each method in each comparable cell.

A cell holds the runs that can be compared: same source, task, base model, data set, metric and data regime. Values
are in points (fractions times 100), higher is better, and what is learned is a method's distance from its cell's
median. Printed averages, runs marked as baselines (prompting, no fine-tuning) and failed runs take no part, nor do
comparisons in which no method gets clearly beyond the untrained model: their order is that of chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from peftselect.method import Structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftselect.method import Method
    from peftselect.record import RunRecord

#: a median of fewer methods says little about any of them
MIN_METHODS = 4
#: standard errors of a score on its test rows by which some method must be better than the untrained model (the best of
#: a dozen that have learnt nothing is 1.6 ahead)
LEARNT = 3.0
#: runs behind a printed mean and its deviation, which tables seldom say
PRINTED_RUNS = 3


class Cell(NamedTuple):
    """What the runs of one comparison have in common."""

    source: str
    task: str
    family: str
    dataset: str
    model: str
    model_type: str
    total_parameters: int | None
    metric: str
    regime: str
    #: values are printed as percentages (fractions otherwise), and lower is better
    percent: bool
    negated: bool


@dataclass(frozen=True)
class Observation:
    """How far, in points, a method was above its cell's median (``median`` is in points too, negated as the values).

    ``error`` is the variance of the value, in squared points, that is known of: the scatter of its runs and what chance
    makes of so few test rows.
    """

    cell: Cell
    method: str
    difference: float
    median: float
    records: tuple[RunRecord, ...]
    error: float = 0.0


def observations(records: Iterable[RunRecord], min_methods: int = MIN_METHODS) -> list[Observation]:
    """Every method of every cell that compares at least ``min_methods``; repeated runs of a method are averaged."""
    cells: dict[Cell, dict[str, list[tuple[float, RunRecord]]]] = defaultdict(lambda: defaultdict(list))
    learnt: set[Cell] = set()
    for record in records:
        known = record.candidate
        if record.status != "ok" or record.problem.get("aggregate") or known.get("baseline") or known.get("stages"):
            continue
        if _has_learnt(record):
            learnt.add(_cell(record, "", higher_is_better=True))
        for metric, score in record.scores.items():
            cell = _cell(record, metric, score.higher_is_better)
            points = score.value * _points(cell) * (-1.0 if cell.negated else 1.0)
            cells[cell][record.candidate["method"]].append((points, record))
    found = []
    for cell, methods in cells.items():
        if len(methods) < min_methods or cell._replace(metric="", negated=False) not in learnt:
            continue
        values = {method: sum(point for point, _ in runs) / len(runs) for method, runs in methods.items()}
        middle = median(list(values.values()))
        for method, value in values.items():
            runs = tuple(record for _, record in methods[method])
            error = _scatter(cell, methods[method]) + max(_chance(record, cell) for record in runs)
            found.append(Observation(cell, method, value - middle, middle, runs, error))
    return found


def _points(cell: Cell) -> float:
    return 1.0 if cell.percent else 100.0


def _scatter(cell: Cell, runs: Sequence[tuple[float, RunRecord]]) -> float:
    """Variance of the mean of a method's runs, in squared points: from the runs, else as it is printed, else 0."""
    if len(runs) > 1:
        mean = sum(point for point, _ in runs) / len(runs)
        return sum((point - mean) ** 2 for point, _ in runs) / (len(runs) - 1) / len(runs)
    printed = runs[0][1].scores[cell.metric].std
    return (printed * _points(cell)) ** 2 / PRINTED_RUNS if printed else 0.0


def _chance(record: RunRecord, cell: Cell) -> float:
    """Variance of a share of the test rows, in squared points; a mean of numbers from 0 to 1 does not exceed it. All
    runs of a comparison are scored on the same rows or as many, so that more runs do not lessen it."""
    rows, value = record.problem.get("num_test_examples"), record.scores[cell.metric].value * _points(cell) / 100.0
    return 1e4 * _share_variance(value, rows) if rows and 0.0 <= value <= 1.0 else 0.0


def _share_variance(value: float, rows: int) -> float:
    """Variance of a share of so many rows."""
    return value * (1.0 - value) / rows


def _has_learnt(record: RunRecord) -> bool:
    """Whether a run's main score is clearly beyond that of the untrained model; where that is not known, it is.

    The error is that of a share of the test rows, which that of a mean of numbers from 0 to 1 does not exceed.
    """
    score, before = record.scores.get(record.metric or ""), record.baseline.get(record.metric or "")
    rows = record.problem.get("num_test_examples")
    if score is None or before is None or not rows or not 0.0 <= score.value <= 1.0:
        return True
    gain = (score.value - before.value) * (1 if score.higher_is_better else -1)
    return bool(gain > LEARNT * math.sqrt(_share_variance(score.value, rows)))


def _cell(record: RunRecord, metric: str, higher_is_better: bool) -> Cell:
    problem = record.problem
    return Cell(
        source=record.source,
        task=str(problem.get("task", "")),
        family=str(problem.get("family", "")),
        dataset=str(problem.get("dataset", "")),
        model=str(problem.get("model", "")),
        model_type=str(problem.get("model_type", "")),
        total_parameters=problem.get("total_parameters"),
        metric=metric,
        regime=str(problem.get("regime", "unknown")),
        percent=problem.get("scale") == "percent",
        negated=not higher_is_better,
    )


def median(values: Sequence[float]) -> float:
    """The middle value (without the price of importing ``statistics``)."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def method_traits(method: Method) -> frozenset[str]:
    """What a method is made of, as traits that can be had in common: its PEFT-Ref structure, its family, where it
    acts, whether it merges and whether it leaves the base alone."""
    columns = (item.name for item in fields(Structure) if item.name != "derived")
    found = {f"{name}: {getattr(method.structure, name)}" for name in columns}
    found |= {f"acts on {part}" for part in method.acts_on} | {f"family: {method.family}"}
    found |= {f"merges: {method.mergeable}", f"saves an adapter: {method.saves_adapter}"}
    return frozenset(found)
