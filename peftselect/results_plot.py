"""Runs on two axes, and which of them nothing beats on both: what `peftselect results plot` draws."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.pareto import front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.record import RunRecord


@dataclass(frozen=True)
class Axis:
    """A quantity of a run: its title with the unit, what to divide by for that unit, whether more is better."""

    title: str
    unit: float = 1.0
    more_is_better: bool = False


AXES = {
    "score": Axis("score", more_is_better=True),
    "memory": Axis("peak memory (GiB)", 1024**3),
    "time": Axis("training time (min)", 60),
    "parameters": Axis("trained parameters (M)", 1e6),
    "adapter": Axis("adapter size (MiB)", 1024**2),
}
_MEASURED = {"memory": "peak_memory_bytes", "time": "train_seconds", "adapter": "adapter_bytes"}
#: what runs of one comparison have in common
_COMPARISON = ("task", "dataset", "model", "regime")


@dataclass(frozen=True)
class Dot:
    """A run on the axes (in their units); ``best``: nothing is as good on both and better on one."""

    record: RunRecord
    x: float
    y: float
    best: bool


@dataclass(frozen=True)
class Plot:
    """One comparison's runs. ``others`` are further comparisons among the records that could be drawn."""

    title: str
    x_title: str
    y_title: str
    dots: tuple[Dot, ...]
    others: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plot for programs: the title, the axes, every run with its id."""
        dots = [
            {"id": dot.record.id, "method": dot.record.candidate["method"], "x": dot.x, "y": dot.y, "front": dot.best}
            for dot in self.dots
        ]
        return {"schema": 1, "title": self.title, "x": self.x_title, "y": self.y_title, "runs": dots}


def make_plot(records: Sequence[RunRecord], x: str, y: str, metric: str = "") -> Plot:
    """The runs of the largest comparison among ``records`` (same source, task, data set, model, regime, metric).

    ``x`` and ``y`` are names of :data:`AXES`; ``metric`` is the score's, by default each record's primary one.
    InputError where the axes are one, or no run has both quantities.
    """
    if x == y:
        raise InputError(f"both axes are {x}", f"choose two of {', '.join(AXES)}")
    comparisons: dict[tuple[str, ...], list[tuple[RunRecord, float, float]]] = defaultdict(list)
    for record in records:
        name = metric or record.metric or ""
        across, up = _value(record, x, name), _value(record, y, name)
        if record.status == "ok" and across is not None and up is not None:
            shared = tuple(str(record.problem.get(key, "")) for key in _COMPARISON)
            comparisons[record.source, *shared, name].append((record, across, up))
    if not comparisons:
        raise InputError(f"no record has both {x} and {y}", "the filters leave none; `peftselect results` lists them")
    key = max(comparisons, key=lambda item: (len(comparisons[item]), item))
    runs, metric = comparisons[key], key[-1]
    axes = [_axis(name, runs[0][0], metric) for name in (x, y)]
    signs = [-1.0 if axis.more_is_better else 1.0 for axis in axes]
    best = front([(signs[0] * across, signs[1] * up) for _, across, up in runs])
    dots = [
        Dot(record, across / axes[0].unit, up / axes[1].unit, on_it)
        for (record, across, up), on_it in zip(runs, best, strict=True)
    ]
    title = ", ".join(filter(None, (key[0], *key[1:-1])))
    ordered = tuple(sorted(dots, key=lambda dot: (dot.x, dot.y)))
    return Plot(title, axes[0].title, axes[1].title, ordered, len(comparisons) - 1)


def _axis(name: str, record: RunRecord, metric: str) -> Axis:
    if name != "score":
        return AXES[name]
    return Axis(metric, more_is_better=record.scores[metric].higher_is_better)


def _value(record: RunRecord, name: str, metric: str) -> float | None:
    if name == "score":
        return record.scores[metric].value if metric in record.scores else None
    if name == "parameters":
        trained = record.measured.get("trainable_parameters", record.candidate.get("trainable_parameters"))
        return None if trained is None else float(trained)
    found = record.measured.get(_MEASURED[name])
    return None if found is None else float(found)
