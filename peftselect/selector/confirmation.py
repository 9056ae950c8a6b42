"""A candidate about to be recommended is traced where the closed form alone could be wrong about whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from peftselect.memory.closed_form import verdict
from peftselect.memory.estimate import from_trace, trace_setting
from peftselect.memory.setting import Setting
from peftselect.memory.trace import NotTracedError
from peftselect.question import under
from peftselect.selector import constraints, scoring
from peftselect.selector.answer import Excluded, FailedConstraint, RankedCandidate
from peftselect.selector.command import run_command
from peftselect.selector.consider import consider
from peftselect.words import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.memory.closed_form import MemoryEstimate
    from peftselect.method import Method
    from peftselect.problem import Problem
    from peftselect.selector.consider import Question

Trace = Literal["auto", "always", "never"]
TRACES: tuple[str, ...] = ("auto", "always", "never")
#: recipes of one method that are traced before it is given up
MOST_TRIES = 3


@dataclass
class Confirmed:
    """The ranking after tracing, what was excluded by it, and what is to be said about traces that failed."""

    ranked: list[RankedCandidate]
    excluded: list[Excluded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def confirm(
    question: Question, methods: Mapping[str, Method], ranked: Sequence[RankedCandidate], trace: Trace
) -> Confirmed:
    """Trace the first candidate; where it does not fit after all, take a smaller recipe, or the next candidate."""
    found = Confirmed(list(ranked))
    while trace != "never" and found.ranked:
        first = found.ranked[0]
        if trace == "auto" and not in_doubt(first.memory, question.problem.hardware.vram_bytes):
            break
        try:
            checked = _checked(question, methods, first)
        except NotTracedError as error:
            found.notes.append(f"the memory of {first.method} could not be traced ({error}): it is the closed form's")
            break
        if isinstance(checked, Excluded):
            found.excluded.append(checked)
            rest = found.ranked[1:]
        else:
            rest = [checked, *found.ranked[1:]]
        found.ranked = scoring.rank(rest, question.problem.priorities.prefer)
        if not isinstance(checked, Excluded) and found.ranked[0].method == checked.method:
            break
    return found


def in_doubt(memory: MemoryEstimate, vram_bytes: int | None) -> bool:
    """Whether an estimate that is off by its error band would get the other answer to whether it fits at all."""
    if vram_bytes is None or memory.source != "closed_form":
        return False
    share = memory.band.worst_percent / 100.0
    best, worst = (replace(memory, peak_bytes=round(memory.peak_bytes * (1 + sign * share))) for sign in (-1, 1))
    return verdict(best, vram_bytes).fits != verdict(worst, vram_bytes).fits


def _checked(
    question: Question, methods: Mapping[str, Method], candidate: RankedCandidate
) -> RankedCandidate | Excluded:
    """The candidate with its traced memory, on a smaller recipe if need be; excluded where none fits."""
    problem, method = question.problem, candidate.candidate.method
    twin = constraints.twin_on_quantized_base(method, methods.values())
    traced: MemoryEstimate = candidate.memory
    tried: RankedCandidate | Excluded = candidate
    for _ in range(MOST_TRIES):
        if isinstance(tried, Excluded):
            return tried
        closed = tried.memory
        traced = from_trace(trace_setting(_setting(problem, tried), "fast"))
        answer = verdict(traced, problem.hardware.vram_bytes)
        if answer.fits:
            wishes = question.wishes
            command = run_command(problem, tried.candidate, wishes.train, wishes.columns)
            return replace(tried, memory=traced, verdict=answer, command=command)
        tried = consider(replace(question, problem=_stricter(problem, traced, closed)), method, twin)
    sentence = f"a trace of its training step needs {size(traced.device_bytes)}"
    return constraints.exclude(method, [FailedConstraint("memory", sentence)], {})


def _setting(problem: Problem, item: RankedCandidate) -> Setting:
    candidate = item.candidate
    shape = under(problem, candidate.method).shape
    return Setting(problem.model, shape, candidate.method, candidate.values, candidate.recipe, problem.hardware)


def _stricter(problem: Problem, traced: MemoryEstimate, closed: MemoryEstimate) -> Problem:
    """The question with a budget as much smaller as the closed form was too low."""
    vram = problem.hardware.vram_bytes
    assert vram is not None  # without a budget everything fits
    context = closed.device_bytes - closed.peak_bytes
    room = (vram - context) * closed.peak_bytes / traced.peak_bytes
    return replace(problem, hardware=replace(problem.hardware, vram_bytes=round(room) + context))
