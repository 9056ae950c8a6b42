"""The first predictor: a static ranking of methods, shrunk by task family and data regime, fitted from records.

A method's effect is its mean distance, in points, from the median method of the same comparison; what its task family
and then the data regime add to that is shrunk towards nothing by how few comparisons there are. Fitting is plain
arithmetic over a few hundred numbers: it takes milliseconds, so nothing is stored between the records and the answer.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.features import Cell, Observation, observations

if TYPE_CHECKING:
    from peftselect.record import RunRecord

#: comparisons that a level's own mean must outweigh: all tasks, then the task family, then family and regime
PRIOR_GLOBAL, PRIOR_FAMILY, PRIOR_REGIME = 3.0, 6.0, 3.0
#: papers that a method's mean must outweigh on a family of tasks where nobody has tried it
PRIOR_PAPERS = 2.0
#: distances beyond this many points count as this many: a collapsed run says "bad", not how bad
CLIP_POINTS = 12.0
#: comparisons which a method's own scatter must outweigh against that of all methods
PRIOR_SCATTER = 4.0
#: half the width of the 80 % interval in units of the scatter; set by the coverage with whole tables held out
INTERVAL_FACTOR = 1.28
#: size of the base model, at most this many times larger or smaller, up to which scores are compared
COMPARABLE_SIZE = 4.0
Key = Callable[[Cell, str], Hashable]


@dataclass(frozen=True)
class Expected:
    """A metric's expected value on its own scale (fractions), with the 80 % interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """How far a method is expected to be from the median method, in points of the metric; ``low``..``high`` is the
    80 % interval. ``records`` counts the comparisons behind it, ``local_records`` those of the same task family and
    data regime, ``sources`` where they come from, ``because`` says so in a sentence. ``expected`` is the metric itself
    where records of the same task, metric, kind and size of model exist."""

    difference_points: float
    low: float
    high: float
    records: int
    local_records: int
    sources: tuple[str, ...]
    because: str
    expected: Expected | None = None


@dataclass(frozen=True)
class _Level:
    """Shrunken means and summed weights by key; ``variance`` of the means among the keys."""

    key: Key
    prior: float
    mean: Mapping[Hashable, float]
    weight: Mapping[Hashable, float]
    variance: float

    def at(self, cell: Cell, method: str) -> float:
        return self.mean.get(self.key(cell, method), 0.0)

    def doubt(self, cell: Cell, method: str) -> float:
        """What of the variance among the keys the evidence at this one leaves open."""
        return self.variance * self.prior / (self.prior + self.weight.get(self.key(cell, method), 0.0))


class Predictor:
    """Fitted by :meth:`fit`; :meth:`predict` answers for one method in one situation."""

    def __init__(self, learned: Sequence[Observation]) -> None:
        self._by_method: dict[str, list[Observation]] = defaultdict(list)
        for item in learned:
            self._by_method[item.method].append(item)
        self._cells = {item.cell: item.median for item in learned}
        metrics = Counter(_data_set(cell) for cell in self._cells)
        # several metrics of the same runs are one piece of evidence, not several
        weights = [1.0 / metrics[_data_set(item.cell)] for item in learned]
        rest = [max(-CLIP_POINTS, min(CLIP_POINTS, item.difference)) for item in learned]
        self._levels: list[_Level] = []
        for key, prior in _LEVELS:
            level = _shrunken(key, prior, learned, rest, weights)
            rest = [value - level.at(item.cell, item.method) for item, value in zip(learned, rest, strict=True)]
            self._levels.append(level)
        squares = [value * value for value in rest]
        self._variance = sum(w * s for w, s in zip(weights, squares, strict=True)) / (sum(weights) or 1.0)
        self._scatter = _scatter(learned, squares, weights, self._variance)

    @classmethod
    def fit(cls, records: Iterable[RunRecord]) -> Predictor:
        """Learn from records (see :mod:`peftselect.features` for which of them count)."""
        return cls(observations(records))

    @property
    def methods(self) -> frozenset[str]:
        """Methods that have records."""
        return frozenset(self._by_method)

    def predict(self, facts: Mapping[str, Any], method: str, like: str | None = None) -> Prediction | None:
        """Prediction for ``method`` given the problem's facts, or for ``like`` where it has no records of its own;
        None where there are no records at all (the predictor abstains)."""
        name = method if method in self._by_method else like
        if name is None or name not in self._by_method:
            return None
        asked = _asked(facts)
        difference, half = self.estimate(asked, name)
        own = self._by_method[name]
        local = [item for item in own if item.cell.family == asked.family and item.cell.regime == asked.regime]
        borrowed = f" ({method} has no records of its own: those of {name})" if name != method else ""
        return Prediction(
            difference_points=difference,
            low=difference - half,
            high=difference + half,
            records=len(own),
            local_records=len(local),
            sources=tuple(sorted({item.cell.source for item in local or own})),
            because=_because(own, local, asked) + borrowed,
            expected=self._expected(asked, difference, half),
        )

    def estimate(self, cell: Cell, method: str) -> tuple[float, float]:
        """Distance from the median and half the width of its 80 % interval, in points, for a method with records.

        The width is the scatter of single comparisons, and on top of it what the mean itself may be off by. Where the
        method was never tried on the cell's family of tasks, its mean elsewhere counts the less the fewer papers it
        comes from: one paper's tables share their models, their tuning and their interest.
        """
        difference = sum(level.at(cell, method) for level in self._levels)
        doubt = sum(level.doubt(cell, method) for level in self._levels)
        own = self._by_method[method]
        if all(item.cell.family != cell.family for item in own):
            papers = len({item.cell.source for item in own})
            doubt += difference**2 * PRIOR_PAPERS / (papers + PRIOR_PAPERS)
            difference *= papers / (papers + PRIOR_PAPERS)
        return difference, INTERVAL_FACTOR * math.sqrt(self._scatter[method] + doubt)

    def _expected(self, asked: Cell, difference: float, half: float) -> Expected | None:
        medians: dict[str, list[float]] = defaultdict(list)
        for cell, middle in self._cells.items():
            if _comparable(cell, asked):
                medians[cell.dataset].append(-middle if cell.negated else middle)
        if len(medians) < 2:  # one data set's level says nothing about another's
            return None
        sign = -1.0 if any(cell.negated for cell in self._cells if _comparable(cell, asked)) else 1.0
        levels = [sum(values) / len(values) for values in medians.values()]
        mean = sum(levels) / len(levels)
        between = sum((level - mean) ** 2 for level in levels) / (len(levels) - 1)
        spread = math.hypot(half, INTERVAL_FACTOR * math.sqrt(between * (1 + 1 / len(levels))))
        value = mean + sign * difference
        low, high = (max(0.0, min(100.0, point)) / 100.0 for point in (value - spread, value + spread))
        return Expected(asked.metric, max(0.0, min(1.0, value / 100.0)), low, high)


_LEVELS: tuple[tuple[Key, float], ...] = (
    (lambda cell, method: method, PRIOR_GLOBAL),
    (lambda cell, method: (method, cell.family), PRIOR_FAMILY),
    (lambda cell, method: (method, cell.family, cell.regime), PRIOR_REGIME),
)


def _shrunken(
    key: Key, prior: float, learned: Sequence[Observation], values: Sequence[float], weights: Sequence[float]
) -> _Level:
    total: dict[Hashable, float] = defaultdict(float)
    weight: dict[Hashable, float] = defaultdict(float)
    for item, value, share in zip(learned, values, weights, strict=True):
        at = key(item.cell, item.method)
        total[at] += share * value
        weight[at] += share
    mean = {at: total[at] / (weight[at] + prior) for at in total}
    variance = sum(value * value for value in mean.values()) / max(len(mean), 1)
    return _Level(key, prior, mean, weight, variance)


def _scatter(
    learned: Sequence[Observation], squares: Sequence[float], weights: Sequence[float], pooled: float
) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    weight: dict[str, float] = defaultdict(float)
    for item, square, share in zip(learned, squares, weights, strict=True):
        total[item.method] += share * square
        weight[item.method] += share
    return {name: (total[name] + PRIOR_SCATTER * pooled) / (weight[name] + PRIOR_SCATTER) for name in total}


def _data_set(cell: Cell) -> tuple[str, str, str, str]:
    return (cell.source, cell.model, cell.dataset, cell.regime)


def _comparable(cell: Cell, asked: Cell) -> bool:
    same = (cell.task, cell.metric, cell.model_type) == (asked.task, asked.metric, asked.model_type)
    if not same or not cell.total_parameters or not asked.total_parameters:
        return False
    ratio = cell.total_parameters / asked.total_parameters
    return 1 / COMPARABLE_SIZE <= ratio <= COMPARABLE_SIZE


def _asked(facts: Mapping[str, Any]) -> Cell:
    """The situation as a cell, so that questions and records are looked up alike."""
    return Cell(
        source="",
        task=str(facts.get("task") or ""),
        family=str(facts.get("task_family") or ""),
        dataset="",
        model=str(facts.get("model") or ""),
        model_type=str(facts.get("model_type") or ""),
        total_parameters=facts.get("total_parameters"),
        metric=str(facts.get("metric") or ""),
        regime=str(facts.get("data_regime") or "unknown"),
        percent=False,
        negated=False,
    )


def _because(own: Sequence[Observation], local: Sequence[Observation], asked: Cell) -> str:
    family = [item for item in own if item.cell.family == asked.family]
    text = f"{len(own)} comparison{'s' * (len(own) != 1)} with other methods"
    if not family:
        return f"{text}, none of them of {asked.family} tasks"
    data = f", {len(local)} of these with {asked.regime} data" if asked.regime != "unknown" else ""
    return f"{text}, {len(family)} of them of {asked.family} tasks{data}"


#: by cell and method: predicted distance, half the width of its 80 % interval, true distance, in points
HeldOut = dict[Cell, dict[str, tuple[float, float, float]]]


def held_out(learned: Sequence[Observation], group: Callable[[Cell], str]) -> HeldOut:
    """What is predicted of each group of cells from all the others, beside the truth.

    Methods without records in the other groups are left out (the predictor abstains).
    """
    found: HeldOut = defaultdict(dict)
    for name in sorted({group(item.cell) for item in learned}):
        predictor = Predictor([item for item in learned if group(item.cell) != name])
        for item in learned:
            if group(item.cell) == name and item.method in predictor.methods:
                found[item.cell][item.method] = (*predictor.estimate(item.cell, item.method), item.difference)
    return found


def regret(learned: Sequence[Observation], group: Callable[[Cell], str]) -> dict[str, float]:
    """Mean loss in points against each cell's best method: of the predictor with groups held out, of always choosing
    LoRA, and of choosing at random. Cells where the predictor knows no method count as a random choice."""
    predictions = held_out(learned, group)
    losses: dict[str, list[float]] = {"predictor": [], "always_lora": [], "random": []}
    truths: dict[Cell, dict[str, float]] = defaultdict(dict)
    for item in learned:
        truths[item.cell][item.method] = item.difference
    for cell, truth in truths.items():
        best, mean = max(truth.values()), sum(truth.values()) / len(truth)
        chosen = max(predictions.get(cell, {}).values(), default=(0.0, 0.0, mean))[2]
        losses["predictor"].append(best - chosen)
        losses["always_lora"].append(best - truth.get("lora", mean))
        losses["random"].append(best - mean)
    return {name: sum(values) / max(len(values), 1) for name, values in losses.items()}
