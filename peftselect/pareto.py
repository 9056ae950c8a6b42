"""What nothing else beats: the points that no other point is as good as in everything and better than in something."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point whether it is on the Pareto front. Every coordinate is a cost: less is better.

    Equal points are all on it or all off it. ``points`` are of one length; time is their number squared.
    """
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    no_worse = all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
    return no_worse and any(mine < theirs for mine, theirs in zip(one, other, strict=True))
