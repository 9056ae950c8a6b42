"""The utility of a candidate, in points of the task's metric, and the ranking with its ties.

::

    quality = predicted difference - caution x its doubt + sum of (weight x points) of the rules that fired
    score   = quality - sum over costs of price(cost, --prefer) x log2(cost / cheapest candidate's cost) - risks

The predicted difference is the predictor's, in points against the median method on like tasks; its doubt is the
standard deviation of that expectation, so that of two methods which look alike the better known goes first; how much of
it is taken off was chosen with the weights of the rules (:mod:`peftselect.predictor.choice`). Rules count in the same
points: with weight 1 where they speak of what no record varies (:data:`RECORDED` are the facts that records vary), of
one type of model on one kind of task, which the predictor hardly tells apart, or where records are far; else with the
weight that was fitted beside the records.

The costs are peak memory (at a micro-batch of one, so that recipes which fill the budget differently compare), training
time and the adapter's size; a price is what a doubling of that cost is worth in points. :data:`PRICES` has one row for
each ``--prefer``. The risks are :func:`risk_points`.

Two runs of one method differ by up to :data:`NOISE_POINTS` points, by less where the records of a task lie close
together (BLEU on code), so candidates whose quality is that close are tied: they form a group, and inside the group the
score (in which cost has its say) decides the order. A method that nobody tried on the family of tasks is not in the
first group of ``--prefer quality``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftselect.facts import FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.knowledge import Firing
    from peftselect.predictor import Prediction
    from peftselect.selector.answer import RankedCandidate

#: the utility in one line, as `recommend --explain` prints it
UTILITY = "score = quality - sum over costs of price(cost, --prefer) x log2(cost / cheapest candidate's cost) - risks"
#: gaps under 3 points between single runs are ties (PEFT method comparison, repeated runs of one configuration)
NOISE_POINTS = 3.0
#: so little below the first group that rounding does not bring it back
BELOW = 1e-6
#: facts of a question that differ among the records
RECORDED = frozenset(
    {
        "task",
        "task_family",
        "modality",
        "model",
        "model_type",
        "architecture",
        "total_parameters",
        "data_regime",
        "metric",
    }
)  # fmt: skip
#: points that a doubling of a cost is worth, by preference
PRICES: dict[str, dict[str, float]] = {
    "quality": {"memory": 0.25, "time": 0.25, "size": 0.05},
    "memory": {"memory": 4.0, "time": 0.25, "size": 0.05},
    "speed": {"memory": 0.25, "time": 4.0, "size": 0.05},
    "size": {"memory": 0.25, "time": 0.25, "size": 1.0},
}
#: a borderline fit risks the run: it is worth this much less
BORDERLINE_POINTS = 2.0
#: a quantised base costs time, rounds the weights and cannot take a merged adapter: where the same method fits on a
#: plain base, it is worth this much less (unless memory is what matters most)
NEEDLESS_QUANTISATION_POINTS = 1.0


def quality(firings: Sequence[Firing], prediction: Prediction | None) -> float:
    """Points of quality: what records let expect, less what they leave in doubt, and what rules add."""
    expected = expected_points(prediction)
    if prediction is None or expected is None:
        return sum(item.points for item in firings)
    told = sum(item.points * (prediction.rules_weight if told_by_records(item) else 1.0) for item in firings)
    return expected + told


def expected_points(prediction: Prediction | None) -> float | None:
    """What records let expect, less what they leave in doubt, in points; None without records."""
    return None if prediction is None else prediction.cautious_points


def noise_points(prediction: Prediction | None) -> float:
    """The distance in points up to which two candidates are tied."""
    return min(NOISE_POINTS, prediction.noise_points) if prediction else NOISE_POINTS


def tried(firings: Sequence[Firing], prediction: Prediction | None) -> bool:
    """Whether somebody speaks of this method on this family of tasks: a record, or a rule of the job at hand that
    addresses the method by name or by where it acts; everybody does where the records are far."""
    if prediction is None or prediction.nearest.far or prediction.family_records:
        return True
    facts = [{each.fact for each in item.rule.when} for item in firings if item.points > 0]
    return any(
        each & {"method", "acts_on"} and each & {"task", "task_family", "model_type", "traits"} for each in facts
    )


def told_by_records(firing: Firing) -> bool:
    """Whether a rule speaks of nothing but what records tell apart, so that they confirm or deny it."""
    asked = {item.fact for item in firing.rule.when if FACTS[item.fact].of == "problem"}
    if "model_type" in asked and asked & {"task", "modality"}:
        return False
    return asked <= RECORDED


def costs(candidate: RankedCandidate) -> dict[str, float]:
    """Costs by name; a cost that is not known is left out."""
    found = {"memory": float(candidate.comparable_bytes), "size": float(candidate.adapter_bytes)}
    if candidate.train_seconds is not None:
        found["time"] = candidate.train_seconds.value
    return {name: value for name, value in found.items() if value > 0}


@dataclass(frozen=True)
class Charge:
    """What one cost takes off a candidate's score: ``price`` points for each doubling of ``ratio`` to the cheapest."""

    cost: str
    price: float
    ratio: float

    @property
    def points(self) -> float:
        """Points taken off."""
        return self.price * math.log2(self.ratio)


def cheapest_costs(candidates: Sequence[RankedCandidate]) -> dict[str, float]:
    """The lowest of each cost among the candidates."""
    found: dict[str, float] = {}
    for candidate in candidates:
        for name, value in costs(candidate).items():
            found[name] = min(value, found.get(name, value))
    return found


def charges(candidate: RankedCandidate, cheapest: Mapping[str, float], prefer: str) -> list[Charge]:
    """What each of the candidate's costs above the cheapest ones is worth."""
    prices = PRICES[prefer]
    return [Charge(name, prices[name], value / cheapest[name]) for name, value in costs(candidate).items()]


def risk_points(candidate: RankedCandidate, others: Sequence[RankedCandidate], prefer: str) -> float:
    """What a borderline fit and a quantised base that is not needed are worth, in points."""
    points = BORDERLINE_POINTS if candidate.verdict.verdict == "borderline" else 0.0
    plain = candidate.candidate.method.records_like
    if candidate.candidate.recipe.quantization is None or prefer == "memory":
        return points
    if any(other.method == plain and other.candidate.recipe.quantization is None for other in others):
        points += NEEDLESS_QUANTISATION_POINTS
    return points


def rank(candidates: Sequence[RankedCandidate], prefer: str) -> list[RankedCandidate]:
    """Score, group and order the candidates; ``rank`` and ``tie_group`` count from 1.

    With ``--prefer quality`` a group is taken off the top of the list by quality. Any other preference says that some
    quality may be given for the cost, at the price above: there the score forms the groups.
    """
    cheapest = cheapest_costs(candidates)
    scored = []
    for item in candidates:
        charged = sum(charge.points for charge in charges(item, cheapest, prefer))
        scored.append(replace(item, score=item.quality - charged - risk_points(item, candidates, prefer)))
    ranked: list[RankedCandidate] = []
    for group, members in enumerate(_groups(scored, prefer), 1):
        for member in sorted(members, key=lambda item: (-item.score, item.method)):
            ranked.append(replace(member, rank=len(ranked) + 1, tie_group=group))
    return ranked


def _groups(candidates: Sequence[RankedCandidate], prefer: str) -> list[list[RankedCandidate]]:
    """Each group reaches the noise of a run down from its best member; what nobody tried begins below the first."""

    best = max((item.quality for item in candidates if item.tried), default=math.inf)

    def worth(item: RankedCandidate) -> float:
        if prefer != "quality":
            return item.score
        return item.quality if item.tried else min(item.quality, best - item.noise_points - BELOW)

    groups: list[list[RankedCandidate]] = []
    for candidate in sorted(candidates, key=lambda item: (-worth(item), item.method)):
        if groups and worth(groups[-1][0]) - worth(candidate) < candidate.noise_points:
            groups[-1].append(candidate)
        else:
            groups.append([candidate])
    return groups
