"""How sure a score is: bootstrap intervals over the rows (Efron 1979, percentile), paired where scores are compared."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.task import Row, Task

#: draws of the rows; fewer where a metric must be computed anew for each (F1, BLEU)
DRAWS, FEW_DRAWS = 1000, 200
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A score and the interval that holds it at :data:`LEVEL`; ``low`` and ``high`` are None for a single row."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """As plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


class Bootstrap:
    """Scores of several sets of predictions on the same rows, redrawn together, so that differences are paired."""

    def __init__(self, task: Task, rows: Sequence[Row], predictions: Sequence[Sequence[Any]], seed: int = 0) -> None:
        self.task = task
        self.rows = rows
        self.predictions = predictions
        self.scores = [self._score(item, range(len(rows))) for item in predictions]
        self._single = [self._per_row(item, whole) for item, whole in zip(predictions, self.scores, strict=True)]
        self._seed = seed
        self._drawn: dict[tuple[int, str], Any] = {}

    @property
    def number_of_draws(self) -> int:
        """Times the rows were drawn for the primary metric."""
        drawn = self.drawn(0, self.task.metric)
        return 0 if drawn is None else len(drawn)

    def interval(self, which: int, metric: str) -> Interval:
        """The score of one set of predictions."""
        return _interval(self.scores[which][metric], self.drawn(which, metric))

    def difference(self, first: int, second: int, metric: str) -> Interval:
        """The first score minus the second."""
        value = self.scores[first][metric] - self.scores[second][metric]
        one, other = self.drawn(first, metric), self.drawn(second, metric)
        if one is None or other is None:
            return Interval(value, None, None)
        number = min(len(one), len(other))  # draws begin alike, so that these are pairs
        return _interval(value, one[:number] - other[:number])

    def drawn(self, which: int, metric: str) -> Any:
        """The metric on each draw of the rows; None for a single row."""
        if len(self.rows) < 2:
            return None
        if (which, metric) not in self._drawn:
            if metric in self._single[which]:
                self._drawn[which, metric] = self._single[which][metric][self._indices()].mean(axis=1)
            else:
                self._draw_all()
        return self._drawn[which, metric]

    def _draw_all(self) -> None:
        """Every metric that is no mean over the rows, computed anew for each draw."""
        for which, item in enumerate(self.predictions):
            scores = [self._score(item, draw.tolist()) for draw in self._indices()[:FEW_DRAWS]]
            for metric in self.scores[which].keys() - self._single[which].keys():
                self._drawn[which, metric] = np.array([score.get(metric, math.nan) for score in scores])

    def _indices(self) -> Any:
        return np.random.default_rng(self._seed).integers(0, len(self.rows), size=(DRAWS, len(self.rows)))

    def _score(self, predictions: Sequence[Any], indices: Sequence[int]) -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a draw may lack a class
            found = self.task.score([predictions[at] for at in indices], [self.rows[at] for at in indices])
        return {name: float(value) for name, value in found.items()}

    def _per_row(self, predictions: Sequence[Any], whole: dict[str, float]) -> dict[str, Any]:
        """Each row's own score by metric, for those whose mean is the score of the whole (accuracy, ROUGE)."""
        answers = [column.name for column in self.task.columns if column.is_answer]
        known: dict[str, dict[str, float]] = {}
        parts = []
        for at, (prediction, row) in enumerate(zip(predictions, self.rows, strict=True)):
            key = repr((prediction, [row.get(name) for name in answers]))
            if key not in known:
                known[key] = self._score(predictions, [at])
            parts.append(known[key])
        values = {name: np.array([part.get(name, math.nan) for part in parts]) for name in whole}
        return {n: v for n, v in values.items() if math.isclose(float(v.mean()), whole[n], abs_tol=1e-6)}


def _interval(value: float, drawn: Any) -> Interval:
    if drawn is None:
        return Interval(value, None, None)
    usable = drawn[np.isfinite(drawn)]
    if not len(usable):
        return Interval(value, None, None)
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
