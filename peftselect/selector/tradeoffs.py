"""The candidates that no other beats in quality, peak memory, training time and adapter size at once.

``--prefer`` moves along this front: each preference has other prices (:data:`peftselect.selector.scoring.PRICES`), and
the utility, which falls with every cost and rises with quality, is highest at a point that nothing beats. Two things
keep a recommended candidate off the front all the same: what beats it was never tried on such tasks (it is not in the
first group then), or is a risk (a borderline fit, a quantised base without need).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from peftselect.pareto import front
from peftselect.problem import Preference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peftselect.problem import Problem
    from peftselect.selector.answer import RankedCandidate, Recommendation


@dataclass(frozen=True)
class Tradeoffs:
    """The front, best quality first, and the method that each preference recommends."""

    front: tuple[RankedCandidate, ...]
    chosen: Mapping[str, str]

    def chosen_by(self, method: str) -> list[str]:
        """The preferences that recommend ``method``."""
        return [prefer for prefer, name in self.chosen.items() if name == method]

    @property
    def notes(self) -> list[str]:
        """A sentence for each recommended method that is not on the front."""
        there = {item.method for item in self.front}
        return [
            f"--prefer {prefer} recommends {method}, off the front: what beats it was never tried on such tasks, or "
            "is a risk"
            for prefer, method in self.chosen.items()
            if method not in there
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """The quantities as the front compares them; ``train_seconds`` is null where it is not known."""
        return [
            {
                "method": item.method,
                "rank": item.rank,
                "quality": round(item.quality, 3),
                "peak_memory_bytes": item.memory.peak_bytes,
                "train_seconds": item.train_seconds and item.train_seconds.value,
                "adapter_bytes": item.adapter_bytes,
                "chosen_by": self.chosen_by(item.method),
            }
            for item in self.front
        ]


def weigh(answer: Recommendation, ask: Callable[[Problem], Recommendation]) -> Tradeoffs:
    """The front of an answer; ``ask`` answers its question again under each other preference."""
    chosen: dict[str, str] = {}
    for prefer in get_args(Preference):
        problem = replace(answer.problem, priorities=replace(answer.problem.priorities, prefer=prefer))
        other = answer if prefer == answer.problem.priorities.prefer else ask(problem)
        if other.recommended:
            chosen[prefer] = other.recommended.method
    return Tradeoffs(tuple(_front(answer.candidates)), chosen)


def _front(candidates: Sequence[RankedCandidate]) -> list[RankedCandidate]:
    """Quality is in points, rules included (:func:`peftselect.selector.scoring.quality`); memory is the peak that is
    predicted for the whole recipe. Where a time is not known, times are not compared."""
    timed = all(item.train_seconds is not None for item in candidates)
    points = [
        (
            -item.quality,
            float(item.memory.peak_bytes),
            item.train_seconds.value if timed and item.train_seconds is not None else 0.0,
            float(item.adapter_bytes),
        )
        for item in candidates
    ]
    found = [item for item, on_it in zip(candidates, front(points), strict=True) if on_it]
    return sorted(found, key=lambda item: (-item.quality, item.rank))
