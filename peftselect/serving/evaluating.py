"""Trained adapters scored on a set of rows: with intervals, against one another, by groups, and what they forgot."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from peftselect.data import raw_rows, read_rows
from peftselect.errors import DataError, InputError
from peftselect.plugin_manager import host
from peftselect.serving.intervals import Bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from peftselect.serving.saved import Saved
    from peftselect.task import Row, Task

#: what the base model is called in tables
BASE = "base model"
#: fewer rows than this make a group whose score says little
SMALL_GROUP = 20


@dataclass(frozen=True)
class Evaluation:
    """Scores of several models on the same rows. ``scores``: model -> metric -> interval.

    ``differences``: each model's primary metric minus the first model's. ``groups``: model -> group -> (rows, interval
    of the primary metric); ``gaps``: model -> best group minus worst, groups of fewer than SMALL_GROUP rows left out.
    ``forgotten``: model -> primary metric on the second set minus the base model's there.
    """

    metric: str
    rows: int
    draws: int
    scores: Mapping[str, Mapping[str, Any]]
    differences: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, tuple[int, Any]]] = field(default_factory=dict)
    gaps: Mapping[str, float] = field(default_factory=dict)
    forgotten: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "schema": 1,
            "metric": self.metric,
            "rows": self.rows,
            "draws": self.draws,
            "scores": {name: _plain(scores) for name, scores in self.scores.items()},
            "differences": _plain(self.differences),
            "groups": {
                name: {group: {"rows": rows, **interval.to_json()} for group, (rows, interval) in groups.items()}
                for name, groups in self.groups.items()
            },
            "gaps": dict(self.gaps),
            "forgotten": _plain(self.forgotten),
        }


def _plain(intervals: Mapping[str, Any]) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in intervals.items()}


@dataclass(frozen=True)
class Sets:
    """What to score on: a file, the column that groups its rows, a second file for what may have been forgotten."""

    data: str | Path
    columns: Mapping[str, str] = field(default_factory=dict)
    group_by: str | None = None
    forgetting: str | Path | None = None
    limit: int | None = None


def evaluate(saved: Sequence[Saved], sets: Sets, *, base: bool = False) -> Evaluation:
    """Score every adapter of ``saved`` (of one task) on the same rows, and the base model of the first too if asked."""
    from peftselect.serving.loaded import load, load_base

    task = _one_task(saved)
    rows = _read(sets.data, task, sets, saved[0].labels)
    names = _names(saved)
    predictions: list[list[Any]] = []
    second: dict[str, Any] = {}
    for name, item in zip(names, saved, strict=True):
        known = _with_labels(item, task, rows)
        loaded = load(known)
        predictions.append(loaded.evaluate(rows).predictions)
        if sets.forgetting is not None:
            others = _read(sets.forgetting, task, sets, item.labels)
            both = [model.evaluate(others).predictions for model in (loaded, load_base(known))]
            second[name] = Bootstrap(task, others, both).difference(0, 1, task.metric)
    if base:
        predictions.append(load_base(_with_labels(saved[0], task, rows)).evaluate(rows).predictions)
        names = [*names, BASE]
    bootstrap = Bootstrap(task, rows, predictions)
    groups = _groups(task, rows, predictions, names, group_of(sets, len(rows))) if sets.group_by else {}
    return Evaluation(
        metric=task.metric,
        rows=len(rows),
        draws=bootstrap.number_of_draws,
        scores={name: {m: bootstrap.interval(at, m) for m in bootstrap.scores[at]} for at, name in enumerate(names)},
        differences={name: bootstrap.difference(at, 0, task.metric) for at, name in enumerate(names) if at},
        groups=groups,
        gaps={name: _gap(of_groups) for name, of_groups in groups.items()},
        forgotten=second,
    )


def _one_task(saved: Sequence[Saved]) -> Task:
    tasks = {item.task for item in saved}
    if len(tasks) > 1:
        raise InputError(f"the adapters are for different tasks: {', '.join(sorted(tasks))}", "evaluate them apart")
    return host().task(saved[0].task)


def _names(saved: Sequence[Saved]) -> list[str]:
    short = [item.name for item in saved]
    return short if len(set(short)) == len(short) else [str(item.folder) for item in saved]


def _read(path: str | Path, task: Task, sets: Sets, labels: Sequence[str]) -> list[Row]:
    return read_rows(path, task, sets.columns, split="test", limit=sets.limit, labels=labels)


def _with_labels(saved: Saved, task: Task, rows: Sequence[Row]) -> Saved:
    """An adapter that others wrote does not say its labels: those of the rows, in their order, are taken for them."""
    return saved if saved.labels else replace(saved, labels=task.label_names(rows))


def group_of(sets: Sets, rows: int) -> list[str]:
    """Each row's group, from a column of the file that the task does not read."""
    name = str(sets.group_by)
    found = []
    for number, document in islice(raw_rows(sets.data, "test"), rows):
        if name not in document:
            raise DataError(f"{sets.data}:{number} has no column {name!r}", f"it has: {', '.join(document)}")
        found.append(str(document[name]))
    return found


def _groups(
    task: Task, rows: Sequence[Row], predictions: Sequence[Sequence[Any]], names: Sequence[str], groups: Sequence[str]
) -> dict[str, dict[str, tuple[int, Any]]]:
    members: dict[str, list[int]] = defaultdict(list)
    for at, group in enumerate(groups):
        members[group].append(at)
    found: dict[str, dict[str, tuple[int, Any]]] = {name: {} for name in names}
    for group, places in sorted(members.items()):
        own = [[item[at] for at in places] for item in predictions]
        bootstrap = Bootstrap(task, [rows[at] for at in places], own)
        for at, name in enumerate(names):
            found[name][group] = (len(places), bootstrap.interval(at, task.metric))
    return found


def _gap(groups: Mapping[str, tuple[int, Any]]) -> float:
    values = [interval.value for rows, interval in groups.values() if rows >= SMALL_GROUP]
    return max(values) - min(values) if values else 0.0
