"""Finished runs side by side, from what they left behind: no model is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.plugin_manager import host
from peftselect.serving.intervals import Bootstrap, Interval
from peftselect.serving.saved import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.task import Task

#: measurements that are compared, with our words for them
COSTS = {
    "trainable_parameters": "trainable parameters",
    "adapter_bytes": "file bytes",
    "train_seconds": "training seconds",
    "peak_memory_bytes": "peak memory bytes",
    "tokens_per_second": "tokens per second",
    "steps": "steps",
}


@dataclass(frozen=True)
class Run:
    """A finished run: its record, and what it predicted on the rows it was scored on."""

    folder: Path
    record: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return host().task(self.record["problem"]["task"])

    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, by name."""
        candidate, problem = self.record["candidate"], self.record["problem"]
        chosen = {**candidate.get("recipe", {}), **candidate.get("hyperparameters", {})}
        return {"model": problem.get("model"), "dataset": problem.get("dataset"), "seed": self.record.get("seed"),
                "method": candidate["method"], **chosen}  # fmt: skip

    def bootstrap(self) -> Bootstrap:
        """Its scores (0) and the base model's (1) on the rows they were measured on."""
        rows = [line["row"] for line in self.lines]
        return Bootstrap(self.task, rows, [[line[name] for line in self.lines] for name in ("prediction", "base")])


@dataclass(frozen=True)
class Comparison:
    """Several runs: ``differing`` settings, ``costs``, ``scores`` and, on the same rows, ``differences`` to the first.

    Each maps a name to one value a run; what a run does not have is None.
    """

    names: tuple[str, ...]
    metric: str
    differing: dict[str, list[Any]]
    costs: dict[str, list[Any]]
    scores: dict[str, list[float | None]]
    differences: list[Interval | None]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "schema": 1,
            "runs": list(self.names),
            "metric": self.metric,
            "settings": self.differing,
            "costs": self.costs,
            "scores": self.scores,
            "differences": [item and item.to_json() for item in self.differences],
            "notes": list(self.notes),
        }


def read_run(folder: str | Path) -> Run:
    """A finished run; InputError where ``folder`` holds none."""
    path = Path(folder)
    record = read_record(path)
    try:
        text = (path / "predictions.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}/predictions.jsonl cannot be read ({type(error).__name__})", "run it anew") from error
    return Run(path, record, lines)


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs of one task side by side; InputError where they are of several."""
    tasks = {run.task.name for run in runs}
    if len(runs) < 2 or len(tasks) > 1:
        why = f"they are of different tasks: {', '.join(sorted(tasks))}" if len(tasks) > 1 else "one run is given"
        raise InputError(f"there is nothing to compare: {why}", "give two or more runs of one task")
    settings = [run.settings() for run in runs]
    every = list(dict.fromkeys(name for item in settings for name in item))
    columns = {name: [item.get(name) for item in settings] for name in every}
    costs = {title: [run.record.get("measured", {}).get(name) for run in runs] for name, title in COSTS.items()}
    metric = runs[0].task.metric
    same = [_same_rows(runs[0], run) for run in runs]
    notes = ["" if ok else f"{run.folder.name} was scored on other rows" for ok, run in zip(same, runs, strict=True)]
    return Comparison(
        names=_names(runs),
        metric=metric,
        differing={name: values for name, values in columns.items() if any(value != values[0] for value in values)},
        costs={title: values for title, values in costs.items() if any(value is not None for value in values)},
        scores={name: [_score(run, name) for run in runs] for name in runs[0].record.get("scores", {})},
        differences=[_difference(runs[0], run) if at and same[at] else None for at, run in enumerate(runs)],
        notes=tuple(filter(None, notes)),
    )


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    short = [run.folder.name for run in runs]
    return tuple(short if len(set(short)) == len(short) else [str(run.folder) for run in runs])


def _score(run: Run, metric: str) -> float | None:
    found = run.record.get("scores", {}).get(metric)
    return None if found is None else float(found["value"])


def _same_rows(first: Run, second: Run) -> bool:
    keys = [[(line["input"], line["target"]) for line in run.lines] for run in (first, second)]
    return keys[0] == keys[1]


def _difference(first: Run, second: Run) -> Interval:
    """The second run's primary metric minus the first's, paired by row."""
    rows = [line["row"] for line in first.lines]
    both = [[line["prediction"] for line in run.lines] for run in (second, first)]
    return Bootstrap(first.task, rows, both).difference(0, 1, first.task.metric)
