"""How good the predictor is: regret, order and intervals with groups of records held out, beside plain habits.

Settings and widths are chosen anew within each held-out group's complement, so that nothing of a group is seen before
it is judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from peftselect.predictor import Predictor
from peftselect.predictor.choice import LEVELS, RulePoints, choose
from peftselect.predictor.judging import STRATEGIES, Comparison, Judged, judge, mean, spearman

if TYPE_CHECKING:
    from peftselect.features import Cell, Observation

METHOD = "method"
HELD_OUT: dict[str, Callable[[Cell], str]] = {
    "table": lambda cell: cell.source,
    "data set": lambda cell: cell.dataset,
    "model": lambda cell: cell.model,
}
#: what can be held out
WAYS = (*HELD_OUT, METHOD)
#: resamples of the interval of the difference to always choosing LoRA
RESAMPLES = 10_000


class Part(NamedTuple):
    """The comparisons of one family of tasks or of metrics: how many, and the mean regret by strategy, in points."""

    of: str
    name: str
    cells: int
    regret: dict[str, float]


@dataclass(frozen=True)
class Assessment:
    """Every comparison of one way of holding out."""

    held_out: str
    judged: Mapping[Comparison, Judged]

    def regret(self, strategy: str, where: Callable[[Comparison, Judged], bool] = lambda *_: True) -> list[float]:
        """Losses in points of the comparisons ``where`` something holds."""
        return [item.lost[strategy] for key, item in self.judged.items() if where(key, item)]

    def coverage(self) -> dict[str, float]:
        """Share of true distances inside the 50, 80 and 95 % intervals."""
        pairs = [(item.truth[name], *found) for item in self.judged.values() for name, found in item.predicted.items()]
        inside = [sum(abs(true - mean) <= half[place] for true, mean, half in pairs) for place in range(len(LEVELS))]
        return {str(level): round(share / max(len(pairs), 1), 3) for level, share in zip(LEVELS, inside, strict=True)}

    def width(self) -> float:
        """Mean half width of the 80 % intervals, in points."""
        return mean([half[1] for item in self.judged.values() for _, half in item.predicted.values()])

    def spearman(self) -> float:
        """Mean rank correlation of predicted and true distances over the comparisons."""
        found = []
        for item in self.judged.values():
            names = list(item.predicted)
            if len(names) > 1:
                found.append(spearman([item.predicted[n][0] for n in names], [item.truth[n] for n in names]))
        return sum(found) / max(len(found), 1)

    def gain(self, over: str = "always_lora", by: str = "combined") -> tuple[float, float, float]:
        """How much less is lost than by a habit, in points, with the 95 % interval of resampled tables."""
        import numpy as np

        tables: dict[str, list[float]] = defaultdict(list)
        for key, item in self.judged.items():
            tables[key.source].append(item.lost[over] - item.lost[by])
        sums = np.array([sum(values) for values in tables.values()])
        counts = np.array([len(values) for values in tables.values()])
        drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(sums.sum() / counts.sum()), float(low), float(high)

    def parts(self) -> list[Part]:
        """The families of tasks, then those of metrics, by name."""
        groups: dict[tuple[str, str], list[Judged]] = defaultdict(list)
        for item in self.judged.values():
            groups["tasks", item.family].append(item)
            groups["metrics", item.metric_family].append(item)
        return [
            Part(of, name, len(found), {way: mean([item.lost[way] for item in found]) for way in STRATEGIES})
            for (of, name), found in sorted(groups.items(), key=lambda group: (group[0][0] == "metrics", group[0][1]))
        ]

    def reliability(self) -> list[tuple[int, float]]:
        """(Level in percent, percent of the true distances inside the interval of that level), every five percent.

        Between the levels that are calibrated the intervals are those of a normal variable, stretched as their
        neighbours are.
        """
        import numpy as np
        from scipy.stats import norm

        pairs = [(item.truth[name], *found) for item in self.judged.values() for name, found in item.predicted.items()]
        if not pairs:
            return []
        away = np.array([abs(true - expected) for true, expected, _ in pairs])
        halves = np.array([half for _, _, half in pairs])
        stretched = halves / norm.ppf(0.5 + np.array(LEVELS) / 200)
        found = []
        for level in range(5, 100, 5):
            half = norm.ppf(0.5 + level / 200) * np.array([np.interp(level, LEVELS, row) for row in stretched])
            found.append((level, round(100 * float((away <= half).mean()), 1)))
        return found

    def to_json(self) -> dict[str, Any]:
        """The assessment in plain JSON values."""
        lost = {name: self.regret(name) for name in STRATEGIES}
        return {
            "cells": len(self.judged),
            "regret": {
                name: {"mean": _round(mean(values)), "p90": _round(p90(values))} for name, values in lost.items()
            },
            "spearman": _round(self.spearman()),
            "coverage": self.coverage(),
            "abstained": _round(mean([float(item.abstained) for item in self.judged.values()])),
        }


def assess(
    learned: Sequence[Observation],
    held_out: str,
    traits: Mapping[str, frozenset[str]],
    rule_points: RulePoints | None = None,
    judged: Callable[[Cell], bool] = lambda _: True,
) -> Assessment:
    """Hold out each group of ``learned`` in turn; only the comparisons that are to be ``judged`` are reported."""
    if held_out == METHOD:
        return Assessment(held_out, without_methods(learned, traits, rule_points, judged))
    group = HELD_OUT[held_out]
    found: dict[Comparison, Judged] = {}
    for name in sorted({group(item.cell) for item in learned if judged(item.cell)}):
        others = [item for item in learned if group(item.cell) != name]
        fitted = Predictor(others, traits, choose(others, traits, rule_points))
        asked = [item for item in learned if group(item.cell) == name and judged(item.cell)]
        found |= judge(fitted, asked, rule_points)
    return Assessment(held_out, found)


def without_methods(
    learned: Sequence[Observation],
    traits: Mapping[str, frozenset[str]],
    rule_points: RulePoints | None,
    judged: Callable[[Cell], bool],
) -> dict[Comparison, Judged]:
    """Each method in turn as if it were new, on a table that nobody has seen either.

    Settings are chosen without the method's records; it is predicted from its structure without those of the table. A
    comparison's loss is the mean over its methods of what is lost where that one is new, and only the new method's
    prediction is judged.
    """
    turns: dict[Comparison, list[tuple[str, Judged]]] = defaultdict(list)
    for name in sorted({item.method for item in learned if judged(item.cell)}):
        others = [item for item in learned if item.method != name]
        settings = choose(others, traits, rule_points)
        mine = {item.cell for item in learned if item.method == name and judged(item.cell)}
        for table in sorted({cell.source for cell in mine}):
            fitted = Predictor([item for item in others if item.cell.source != table], traits, settings)
            asked = [item for item in learned if item.cell in mine and item.cell.source == table]
            for key, item in judge(fitted, asked, rule_points, frozenset({name})).items():
                turns[key].append((name, item))
    return {key: _together(found) for key, found in turns.items()}


def _together(turns: Sequence[tuple[str, Judged]]) -> Judged:
    first = turns[0][1]
    predicted = {name: item.predicted[name] for name, item in turns if name in item.predicted}
    lost = {way: mean([item.lost[way] for _, item in turns]) for way in STRATEGIES}
    return Judged(
        first.family, first.metric_family, first.truth, predicted, lost, all(item.abstained for _, item in turns)
    )


def p90(values: Sequence[float]) -> float:
    """The 90th percentile."""
    import numpy as np

    return float(np.quantile(values, 0.9)) if values else 0.0


def _round(value: float) -> float:
    return round(value, 3)
