"""The utility of a candidate, in points of the task's metric, and the ranking with its ties.

::

    quality = predicted difference + sum of the points of the rules that fired
    score   = quality - sum over costs of price(cost, --prefer) x log2(cost / cheapest candidate's cost) - risks

The predicted difference is the predictor's, in points against the median method on like tasks, 0 where it abstains;
rules count in the same points. The costs are peak memory (at a micro-batch of one, so that recipes which fill the
budget differently compare), training time and the adapter's size; a price is what a doubling of that cost is worth in
points. :data:`PRICES` has one row for each ``--prefer``. The risks are :func:`risk_points`.

Two runs of one method differ by up to :data:`NOISE_POINTS` points, so candidates whose quality is that close are tied:
they form a group, and inside the group the score (in which cost has its say) decides the order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.selector.answer import RankedCandidate

#: gaps under 3 points between single runs are ties (PEFT method comparison, repeated runs of one configuration)
NOISE_POINTS = 3.0
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


def costs(candidate: RankedCandidate) -> dict[str, float]:
    """Costs by name; a cost that is not known is left out."""
    found = {"memory": float(candidate.comparable_bytes), "size": float(candidate.adapter_bytes)}
    if candidate.train_seconds is not None:
        found["time"] = candidate.train_seconds.value
    return {name: value for name, value in found.items() if value > 0}


def cost_points(candidate: RankedCandidate, cheapest: Mapping[str, float], prefer: str) -> float:
    """What the candidate's costs above the cheapest ones are worth, in points."""
    prices = PRICES[prefer]
    return sum(prices[name] * math.log2(value / cheapest[name]) for name, value in costs(candidate).items())


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
    cheapest: dict[str, float] = {}
    for candidate in candidates:
        for name, value in costs(candidate).items():
            cheapest[name] = min(value, cheapest.get(name, value))
    scored = [
        replace(
            item,
            score=item.quality - cost_points(item, cheapest, prefer) - risk_points(item, candidates, prefer),
        )
        for item in candidates
    ]
    ranked: list[RankedCandidate] = []
    for group, members in enumerate(_groups(scored, prefer), 1):
        for member in sorted(members, key=lambda item: (-item.score, item.method)):
            ranked.append(replace(member, rank=len(ranked) + 1, tie_group=group))
    return ranked


def _groups(candidates: Sequence[RankedCandidate], prefer: str) -> list[list[RankedCandidate]]:
    """Each group reaches :data:`NOISE_POINTS` down from its best member."""

    def worth(item: RankedCandidate) -> float:
        return item.quality if prefer == "quality" else item.score

    groups: list[list[RankedCandidate]] = []
    for candidate in sorted(candidates, key=lambda item: (-worth(item), item.method)):
        if groups and worth(groups[-1][0]) - worth(candidate) < NOISE_POINTS:
            groups[-1].append(candidate)
        else:
            groups.append([candidate])
    return groups
