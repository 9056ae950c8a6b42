"""How good the predictor is: regret, order and intervals with groups of records held out, beside plain habits.

A comparison is (table, model, data set, metric, regime) with at least four methods; regret is best minus chosen in
points of the metric (fractions times 100). Settings and widths are chosen anew within each held-out group's complement,
so that nothing of a group is seen before it is judged. A strategy that cannot choose counts as a random choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from peftselect.features import median
from peftselect.predictor import CAUTION, Predictor
from peftselect.predictor.choice import LEVELS, RulePoints, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from peftselect.features import Cell, Observation
HELD_OUT: dict[str, Callable[[Cell], str]] = {
    "table": lambda cell: cell.source,
    "data set": lambda cell: cell.dataset,
    "model": lambda cell: cell.model,
}
STRATEGIES = ("random", "full_finetuning", "always_lora", "static", "rules", "predictor", "combined", "oracle")
#: resamples of the interval of the difference to always choosing LoRA
RESAMPLES = 10_000


class Comparison(NamedTuple):
    """What the yardstick calls a cell: tasks that a table prints under one data set and metric count once."""

    source: str
    model: str
    dataset: str
    metric: str
    regime: str


@dataclass
class Judged:
    """A comparison: the true distances by method, what was predicted of them, and what each strategy loses."""

    family: str
    truth: dict[str, float]
    predicted: dict[str, tuple[float, tuple[float, ...]]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    abstained: bool = False


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

    def spearman(self) -> float:
        """Mean rank correlation of predicted and true distances over the comparisons."""
        found = []
        for item in self.judged.values():
            names = list(item.predicted)
            if len(names) > 1:
                found.append(_spearman([item.predicted[n][0] for n in names], [item.truth[n] for n in names]))
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
    group = HELD_OUT[held_out]
    found: dict[Comparison, Judged] = {}
    for name in sorted({group(item.cell) for item in learned if judged(item.cell)}):
        others = [item for item in learned if group(item.cell) != name]
        fitted = Predictor(others, traits, choose(others, traits, rule_points))
        asked = [item for item in learned if group(item.cell) == name and judged(item.cell)]
        found |= judge(fitted, asked, rule_points)
    return Assessment(held_out, found)


def judge(
    fitted: Predictor, asked: Iterable[Observation], rule_points: RulePoints | None = None
) -> dict[Comparison, Judged]:
    """What a fitted predictor and the habits lose on comparisons that it has not seen."""
    cells: dict[Cell, dict[str, float]] = defaultdict(dict)
    for item in asked:
        cells[item.cell][item.method] = item.difference
    merged: dict[Comparison, list[Cell]] = defaultdict(list)
    for cell in cells:
        merged[Comparison(cell.source, cell.model, cell.dataset, cell.metric, cell.regime)].append(cell)
    found = {}
    for key, members in merged.items():
        truth = _mean_of([cells[cell] for cell in members])
        weighed, full = (
            _mean_of([_rules(cell, cells[cell], rule_points, part) for cell in members]) for part in (0, 1)
        )
        rules = {name: weighed[name] + full[name] for name in truth}
        outcome = Judged(members[0].family, truth)
        known = [name for name in truth if name in fitted.methods]
        expected: dict[str, float] = {}
        weights: dict[str, float] = {}
        cautious: dict[str, float] = {}
        if known:
            estimates = [fitted.estimate(cell, known) for cell in members]
            expected = _centred(_mean_of([{name: item[name][0] for name in known} for item in estimates]))
            for name in known:
                cautious[name] = expected[name] - CAUTION * math.sqrt(estimates[0][name][1])
                weights[name] = fitted.rules_weight(members[0], estimates[0][name][1])
                half = tuple(fitted.interval(members[0], estimates[0][name][1], level) for level in LEVELS)
                outcome.predicted[name] = (expected[name], half)
            outcome.abstained = fitted.nearest(members[0]).far
        both = {name: cautious[name] + weights[name] * weighed[name] + full[name] for name in known}
        outcome.lost = _lost(fitted, truth, rules, expected, both)
        found[key] = outcome
    return found


def _lost(
    fitted: Predictor,
    truth: Mapping[str, float],
    rules: Mapping[str, float],
    expected: Mapping[str, float],
    both: Mapping[str, float],
) -> dict[str, float]:
    best, middle = max(truth.values()), mean(list(truth.values()))
    static = {name: fitted.standing[name] for name in truth if name in fitted.standing}

    def loss(scores: Mapping[str, float]) -> float:
        if not scores:
            return best - middle
        top = max(scores.values())
        return best - mean([truth[name] for name, score in scores.items() if score == top])

    return {
        "random": best - middle,
        "full_finetuning": best - truth.get("full_finetuning", middle),
        "always_lora": best - truth.get("lora", middle),
        "static": loss(static),
        "rules": loss(rules),
        "predictor": loss(expected),
        "combined": loss(both),
        "oracle": 0.0,
    }


def _rules(cell: Cell, methods: Iterable[str], points: RulePoints | None, part: int) -> dict[str, float]:
    return {name: points(cell, name)[part] if points else 0.0 for name in methods}


def _mean_of(items: Sequence[Mapping[str, float]]) -> dict[str, float]:
    shared = [name for name in items[0] if all(name in item for item in items)]
    return {name: sum(item[name] for item in items) / len(items) for name in shared}


def _centred(values: Mapping[str, float]) -> dict[str, float]:
    middle = median(list(values.values()))
    return {name: value - middle for name, value in values.items()}


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    value = float(spearmanr(one, other).statistic)
    return value if value == value else 0.0


def mean(values: Sequence[float]) -> float:
    """The average; 0 of nothing."""
    return sum(values) / max(len(values), 1)


def p90(values: Sequence[float]) -> float:
    """The 90th percentile."""
    import numpy as np

    return float(np.quantile(values, 0.9)) if values else 0.0


def _round(value: float) -> float:
    return round(value, 3)
