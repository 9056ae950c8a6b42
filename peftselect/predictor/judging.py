"""One comparison, judged: the true distances, what was predicted of them, and what each strategy loses on it.

A comparison is (table, model, data set, metric, regime) with at least four methods; regret is best minus chosen in
points of the metric (fractions times 100). A strategy that cannot choose counts as a random choice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from peftselect.features import median
from peftselect.predictor.choice import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect.features import Cell, Observation
    from peftselect.predictor import Predictor
    from peftselect.predictor.choice import RulePoints

STRATEGIES = ("random", "full_finetuning", "always_lora", "static", "rules", "predictor", "combined", "oracle")
#: kinds of metric by what their names have in them; one of which less is better is an error rate
_METRICS = {
    "correlation": r"correlation|pearson|spearman",
    "F1": r"f1",
    "overlap of words": r"rouge|bleu|meteor|chrf",
    "share that is right": r"accuracy|recall|uar|exact",
}


def metric_family(metric: str, negated: bool) -> str:
    """The kind of a metric, by its name: what its points are shares or sums of."""
    if negated:
        return "error rate"
    return next((name for name, words in _METRICS.items() if re.search(words, metric)), "other")


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
    metric_family: str
    truth: dict[str, float]
    predicted: dict[str, tuple[float, tuple[float, ...]]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    abstained: bool = False


def judge(
    fitted: Predictor,
    asked: Iterable[Observation],
    rule_points: RulePoints | None = None,
    unseen: frozenset[str] = frozenset(),
) -> dict[Comparison, Judged]:
    """What a fitted predictor and the habits lose on comparisons that it has not seen.

    Methods without records are chosen by no strategy that learns, but for those in ``unseen``, which the predictor
    places by their structure.
    """
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
        outcome = Judged(members[0].family, metric_family(key.metric, members[0].negated), truth)
        known = [name for name in truth if name in fitted.methods or name in unseen]
        expected: dict[str, float] = {}
        weights: dict[str, float] = {}
        cautious: dict[str, float] = {}
        if known:
            estimates = [fitted.estimate(cell, known) for cell in members]
            expected = _centred(_mean_of([{name: item[name][0] for name in known} for item in estimates]))
            for name in known:
                cautious[name] = fitted.cautious(expected[name], estimates[0][name][1])
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


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; 0 where all values of one are equal."""
    from scipy.stats import spearmanr

    value = float(spearmanr(one, other).statistic)
    return value if value == value else 0.0


def mean(values: Sequence[float]) -> float:
    """The average; 0 of nothing."""
    return sum(values) / max(len(values), 1)
