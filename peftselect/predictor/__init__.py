"""The predictor: a Gaussian process over methods and situations, fitted from records, with calibrated intervals.

What a method is worth in a situation is what it is worth everywhere, plus what it adds on the task, in the data regime
and with the type of model, plus what methods of like structure share. Each is shrunk towards nothing by how little the
records say of it, so that a method never seen is placed by its structure, with a wider interval. How much each may
matter was chosen with whole tables and data sets held out (:mod:`peftselect.predictor.choice`) and is stored as plain
numbers; the equations are solved when the records are read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peftselect.features import Cell, Observation, median, observations
from peftselect.predictor.choice import pairs
from peftselect.predictor.evidence_words import evidence_in_words
from peftselect.predictor.kernel import Kernel, Scale, Side, noise, targets
from peftselect.predictor.settings import Settings
from peftselect.predictor.solved import digest, remembered, remembered_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect.record import RunRecord

__all__ = ["Expected", "Prediction", "Predictor", "Settings"]

#: two comparisons further apart than this many standard deviations differ by more than noise (19 times in 20)
APART = 1.64
#: half the width of the 80 % interval of a normal variable, in standard deviations
NORMAL_80 = 1.28
#: size of the base model, at most this many times larger or smaller, up to which scores are compared
COMPARABLE_SIZE = 4.0
#: how far a situation is from a record by what differs (they add up to 1), and how far is too far
DISTANCES = {"task": 0.3, "family": 0.3, "regime": 0.1, "model_type": 0.1}
OTHER_MODALITY = 0.2
FAR = 0.6


@dataclass(frozen=True)
class Expected:
    """A metric's expected value on its own scale (fractions), with the 80 % interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Nearest:
    """The record nearest to a question, and its distance: 0 (the same kind of task, model and data) to 1."""

    distance: float
    record: str

    @property
    def far(self) -> bool:
        """Whether records have nothing to say of the question by themselves."""
        return self.distance >= FAR


@dataclass(frozen=True)
class Prediction:
    """How far a method is expected to be from the median method, in points of the metric; ``low``..``high`` is the
    80 % interval.

    ``doubt_points`` is the standard deviation of the expectation itself (a single run scatters more),
    ``cautious_points`` the expectation less so much of its doubt as the selector takes off, ``rules_weight`` what a
    point of a rule counts beside it, ``noise_points`` the distance up to which two methods may differ by noise
    alone. ``records`` counts the comparisons behind it, ``family_records`` those of the same task family,
    ``local_records`` those of the data regime too, ``sources`` where they come from, ``because`` says so in a sentence;
    ``nearest`` is the record nearest to the question. ``expected`` is the metric itself where records of the same task,
    metric, kind and size of model exist.
    """

    difference_points: float
    low: float
    high: float
    records: int
    family_records: int
    local_records: int
    sources: tuple[str, ...]
    because: str
    nearest: Nearest
    noise_points: float
    doubt_points: float = 0.0
    cautious_points: float = 0.0
    rules_weight: float = 1.0
    expected: Expected | None = None


class Predictor:
    """Fitted by :meth:`fit`; :meth:`predict` answers for one method in one situation.

    ``traits`` are the structural traits of methods by name (:func:`peftselect.features.method_traits`).
    """

    def __init__(
        self,
        learned: Sequence[Observation],
        traits: Mapping[str, frozenset[str]] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.learned = tuple(learned)
        self.settings = settings or Settings()
        self._kernel = Kernel(self.settings, traits or {})
        self._by_method: dict[str, list[Observation]] = defaultdict(list)
        for item in self.learned:
            self._by_method[item.method].append(item)
        self._cells = {item.cell: item.median for item in self.learned}
        self._known = sorted(self._by_method)
        self._scale = Scale(self.learned)
        #: methods with records, and then those that only have traits: what is asked for is mostly all of them
        others = sorted(set(traits or {}) - set(self._known))
        self._places = [*self._known, *others]
        self._answers: dict[Cell, dict[str, tuple[float, float]]] = {}
        self._nearest: dict[Cell, Nearest] = {}

    @cached_property
    def _question(self) -> str:
        """What all that is solved follows from, in short."""
        traits = {name: sorted(self._kernel.traits.get(name, ())) for name in self._places}
        values = [(item.difference, item.error) for item in self.learned]
        return digest([pairs(self.learned), values, asdict(self.settings), traits])

    @cached_property
    def _solved(self) -> tuple[Side, Any, Any]:
        """The learned pairs, the inverse of their covariance, and the weights of their targets."""
        import numpy as np

        side = Side(pairs(self.learned))

        def inverse() -> Any:
            covariance = self._kernel.mix(self._kernel.parts(side, side))
            return np.linalg.inv(covariance + np.diag(noise(self.learned, self.settings.noise)))

        found = remembered(self._question, len(self.learned), inverse)
        return side, found, found @ targets(self.learned, self.settings.rank_share)

    @classmethod
    def fit(
        cls,
        records: Iterable[RunRecord],
        traits: Mapping[str, frozenset[str]] | None = None,
        settings: Settings | None = None,
    ) -> Predictor:
        """Learn from records (see :mod:`peftselect.features` for which of them count)."""
        return cls(observations(records), traits, settings)

    @property
    def methods(self) -> frozenset[str]:
        """Methods that have records."""
        return frozenset(self._by_method)

    def estimate(self, cell: Cell, methods: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Distance from the median method with records, and the variance of that expectation, both in points, of each
        of ``methods`` in a situation."""
        if cell not in self._answers:
            question, rows, every = [self._question, cell], len(self.learned), self._places
            self._answers = {cell: remembered_answer(question, rows, every, lambda: self._expect(cell, every))}
        seen = self._answers[cell]
        points, middle = self._scale.points(cell), median([seen[name][0] for name in self._known])
        if new := [name for name in dict.fromkeys(methods) if name not in seen]:
            seen = seen | dict(zip(new, self._expect(cell, new), strict=True))
        return {name: (points * (seen[name][0] - middle), max(seen[name][1], 0.0) * points**2) for name in methods}

    def _expect(self, cell: Cell, names: Sequence[str]) -> list[tuple[float, float]]:
        """Mean and variance of methods in a situation, in units."""
        side, inverse, weights = self._solved
        cross = self._kernel.mix(self._kernel.parts([(cell, name) for name in names], side), cell=False)
        spread = self._kernel.prior - ((cross @ inverse) * cross).sum(1)
        return list(zip((cross @ weights).tolist(), spread.tolist(), strict=True))

    def cautious(self, difference: float, variance: float) -> float:
        """What the selector counts on, in points: what is expected, less a part of its deviation."""
        return difference - self.settings.caution * math.sqrt(variance)

    def rules_weight(self, cell: Cell, variance: float) -> float:
        """What a point of a rule counts in a situation, from the variance of what the method is worth there: by the
        fitted weights where records are near, all of it where they are far."""
        if self.nearest(cell).far:
            return 1.0
        prior = self._kernel.prior * self._scale.points(cell) ** 2
        return self.settings.rules_weight + self.settings.rules_open * min(1.0, variance / prior)

    def noise_points(self, cell: Cell) -> float:
        """Distance in points up to which two methods may differ by the noise of a comparison alone."""
        return APART * math.sqrt(2 * self.settings.noise) * self._scale.points(cell)

    @property
    def standing(self) -> dict[str, float]:
        """Mean distance from the best method over all comparisons, in points: the static ranking to beat."""
        best: dict[Cell, float] = defaultdict(lambda: -math.inf)
        for item in self.learned:
            best[item.cell] = max(best[item.cell], item.difference)
        return {
            name: sum(item.difference - best[item.cell] for item in own) / len(own)
            for name, own in self._by_method.items()
        }

    def interval(self, cell: Cell, variance: float, level: int = 80) -> float:
        """Half the width of the interval of a single new comparison, in points, from the variance of its mean."""
        alone = (self.settings.noise + self.settings.source) * self._scale.points(cell) ** 2
        return self.settings.width(level) * math.sqrt(variance + alone)

    def predict(self, facts: Mapping[str, Any], method: str, like: str | None = None) -> Prediction | None:
        """Prediction for ``method`` given the problem's facts, or for ``like`` where it has no records of its own; by
        its structure where neither has. None where there are no records at all."""
        if not self.learned:
            return None
        name = like if like in self._by_method and method not in self._by_method else method
        asked = _asked(facts)
        near = self.nearest(asked)
        difference, variance = self.estimate(asked, [name])[name]
        half = self.interval(asked, variance)
        own = self._by_method.get(name, [])
        local = [item for item in own if item.cell.family == asked.family and item.cell.regime == asked.regime]
        borrowed = f" ({method} has no records of its own: those of {name})" if name != method else ""
        return Prediction(
            difference_points=difference,
            low=difference - half,
            high=difference + half,
            records=len(own),
            family_records=sum(item.cell.family == asked.family for item in own),
            local_records=len(local),
            sources=tuple(sorted({item.cell.source for item in local or own})),
            because=evidence_in_words(own, local, asked) + borrowed,
            nearest=near,
            noise_points=self.noise_points(asked),
            doubt_points=math.sqrt(variance),
            cautious_points=self.cautious(difference, variance),
            rules_weight=self.rules_weight(asked, variance),
            expected=self._expected(asked, difference, half),
        )

    def nearest(self, asked: Cell) -> Nearest:
        """The record nearest to a situation."""
        if asked not in self._nearest:
            cell = min(self._cells, key=lambda cell: _distance(cell, asked))
            name = f"{cell.task} on {cell.dataset} with {cell.model} ({cell.source})"
            self._nearest[asked] = Nearest(round(_distance(cell, asked), 2), name)
        return self._nearest[asked]

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
        spread = math.hypot(half, NORMAL_80 * math.sqrt(between * (1 + 1 / len(levels))))
        value = mean + sign * difference
        low, high = (max(0.0, min(100.0, point)) / 100.0 for point in (value - spread, value + spread))
        return Expected(asked.metric, max(0.0, min(1.0, value / 100.0)), low, high)


def _distance(cell: Cell, asked: Cell) -> float:
    found = sum(weight for name, weight in DISTANCES.items() if getattr(cell, name) != getattr(asked, name))
    return found + OTHER_MODALITY * ((cell.family == "speech") != (asked.family == "speech"))


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
