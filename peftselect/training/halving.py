"""Successive halving (Karnin, Koren and Somekh 2013, algorithm 1): a budget, its rounds, and who survives them.

The budget is shared among the rounds, each round's among the candidates that are left, and the better half goes on.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.problem import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STEPS = re.compile(r"(\d+)\s*steps?")


@dataclass(frozen=True)
class Budget:
    """What the whole probe may take: optimizer steps or seconds, of all candidates together."""

    text: str
    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Tried:
    """A candidate at the end of a round: the optimizer step it has come to, its score and, where there is one, its mean
    loss on the validation rows."""

    arm: int
    step: int
    score: float | None
    seconds: float
    status: str = "ok"
    loss: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The rounds so far, and the arm that won once it is known (None where no candidate could be trained)."""

    rounds: tuple[tuple[Tried, ...], ...] = ()
    finished: bool = False
    winner: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent, loading and scoring included."""
        return sum(item.seconds for row in self.rounds for item in row)

    @property
    def steps(self) -> dict[int, int]:
        """The step that each arm has come to."""
        return {item.arm: item.step for row in self.rounds for item in row}


def parse_budget(text: str) -> Budget:
    """The budget of ``"5m"`` or ``"60steps"``; InputError for anything else, a bare number among them."""
    compact = str(text).strip().lower()
    if found := _STEPS.fullmatch(compact):
        steps = int(found[1])
        if steps < 2:
            raise InputError(f"--probe {text} is too little", "two candidates take two steps at least")
        return Budget(f"{steps}steps", steps=steps)
    if re.fullmatch(r"[\d.]+", compact):
        raise InputError(f"--probe {text}: seconds or steps?", f"write {compact}s or {compact}steps")
    try:
        return Budget(compact, seconds=parse_duration(compact, "--probe"))
    except InputError as error:
        raise InputError(
            f"--probe {text} is not understood", "write a time (5m) or a number of steps (60steps)"
        ) from error


def alive(number: int) -> list[int]:
    """How many candidates are in each round."""
    found = []
    while number > 1:
        found.append(number)
        number = math.ceil(number / 2)
    return found


def each(steps: int, rounds: int, number: int) -> int:
    """Optimizer steps that each of ``number`` candidates takes in one of the ``rounds``."""
    return max(steps // rounds // number, 1)


def survivors(tried: Sequence[Tried], higher_is_better: bool) -> list[int]:
    """The better half's arms, best first.

    Where scores are equal (all candidates may still answer the most frequent label) the lower loss decides, then the
    order of the recommendation.
    """
    sign = -1 if higher_is_better else 1

    def place(item: Tried) -> tuple[float, float, int]:
        return sign * float(item.score or 0.0), math.inf if item.loss is None else item.loss, item.arm

    scored = [item for item in tried if item.status == "ok" and item.score is not None]
    return [item.arm for item in sorted(scored, key=place)[: math.ceil(len(tried) / 2)]]


def outcome_of(document: Mapping[str, Any]) -> Outcome:
    """An outcome that was written as JSON."""
    rounds = tuple(tuple(Tried(**item) for item in row) for row in document["rounds"])
    return Outcome(rounds, document["finished"], document["winner"])
