"""Why a candidate stands where it stands, how sure that is, and what the reader should know of the question."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from peftselect.selector.answer import Confidence, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftselect.knowledge import Firing
    from peftselect.predictor import Prediction
    from peftselect.problem import Problem
    from peftselect.selector.answer import RankedCandidate
    from peftselect.selector.recipes import Fit, Settings

_KINDS = {"prefer": "for", "avoid": "against", "set": "setting"}
#: comparisons of the same task family and data regime from which records are called a good basis
GOOD_BASIS = 8
#: comparisons of any kind that are some basis where none is of this kind
SOME_BASIS = 20


def reasons(
    firings: Sequence[Firing], prediction: Prediction | None, fit: Fit, settings: Settings
) -> tuple[Reason, ...]:
    """Rules first, by weight, then what records say, then what the budget and the user decided."""
    found = [
        Reason(firing.text, firing.source, _KINDS[firing.effect])
        for firing in sorted(firings, key=lambda item: -item.weight)
        if firing.effect in _KINDS
    ]
    if prediction is not None:
        found.append(
            Reason(_record_text(prediction), "; ".join(prediction.sources) or "structure (PEFT-Ref)", "record")
        )
    if fit.changes:
        found.append(Reason(f"To fit the memory: {', then '.join(fit.changes)}.", "memory estimate", "cost"))
    if yours := [name for name, who in settings.set_by.items() if who == "you"]:
        found.append(Reason(f"You set {', '.join(yours)}.", "you", "setting"))
    return tuple(found)


def with_gaps(ranked: Sequence[RankedCandidate]) -> list[RankedCandidate]:
    """The candidates; those which a rule speaks for, and which are not in the first group, say what keeps them out."""
    best = max(ranked, key=lambda item: item.quality if item.tried else -math.inf, default=None)
    return [
        replace(item, reasons=(*item.reasons, _gap(item, best)))
        if best is not None and item.tie_group > 1 and any(reason.kind == "for" for reason in item.reasons)
        else item
        for item in ranked
    ]


def _gap(item: RankedCandidate, best: RankedCandidate) -> Reason:
    behind = best.quality - item.quality
    text = f"Not in the first group: {behind:.1f} points behind {best.method}, a tie being {item.noise_points:.1f}"
    if item.expected_points is None or best.expected_points is None:
        return Reason(f"{text}; rules alone say so.", "rules", "record")
    records = best.expected_points - item.expected_points
    if not item.tried and behind < item.noise_points:
        return Reason("Not in the first group: no record and no rule of such tasks speaks of it.", "records", "record")
    share = f"by records alone it would be {records:.1f}" if records > 0 else "records alone put it first"
    return Reason(f"{text}; {share}.", "records and rules", "record")


def confidence(firings: Sequence[Firing], prediction: Prediction | None) -> Confidence:
    """What the quality rests on: rules, records, both, or nothing."""
    told = [firing for firing in firings if firing.points]
    rules = f"{len(told)} rule{'s' * (len(told) != 1)} ({_evidence(told)})"
    if prediction is None:
        if not told:
            return Confidence("abstained", "no rule and no record speaks of it here: placed by cost alone")
        return Confidence("rules", f"{rules}; no records of it")
    if prediction.nearest.far or not prediction.records:
        near = f"nearest record: {prediction.nearest.record}, distance {prediction.nearest.distance:g}"
        why = f"{near}; {prediction.because}"
        return Confidence("rules", f"{rules}; {why}") if told else Confidence("abstained", why)
    some = prediction.local_records or prediction.records >= SOME_BASIS
    strength = "good" if prediction.local_records >= GOOD_BASIS else "some" if some else "thin"
    records = f"{strength} records: {prediction.because}"
    return Confidence("both", f"{rules}; {records}") if told else Confidence("records", records)


def notes(problem: Problem, ranked: Sequence[RankedCandidate]) -> Iterator[str]:
    """What the reader should know before believing the answer."""
    hardware, data = problem.hardware, problem.data
    yield from problem.task.notes
    if hardware.vram_bytes is None:
        where = "the CPU was asked for" if hardware.name == "cpu" else "no --vram was given and no card was found"
        yield f"The memory budget is unlimited: {where}. Give --vram GIB for an answer that fits a card."
    if data.num_examples is None:
        yield "The number of training examples is not known: give --train FILE or --num-examples N for a surer answer."
    if ranked and (simplified := ranked[0].candidate.method.simplified):
        yield f"{ranked[0].method} is simplified here, which records of its paper do not know: {' '.join(simplified)}"
    tied = [item.method for item in ranked if item.tie_group == 1]
    if len(tied) > 1 and problem.priorities.prefer == "quality":
        names = ", ".join(tied) if len(tied) <= 3 else f"The first {len(tied)} candidates"
        yield (
            f"{names} are tied: their expected quality differs by less than the noise of a run "
            f"({ranked[0].noise_points:.2g} points), so memory, time and adapter size decide among them."
        )


def _record_text(prediction: Prediction) -> str:
    side = "above" if prediction.difference_points >= 0 else "below"
    return (
        f"Expected {abs(prediction.difference_points):.1f} points {side} the median method "
        f"(80 % interval {prediction.low:+.1f} to {prediction.high:+.1f}): {prediction.because}."
    )


def _evidence(firings: Sequence[Firing]) -> str:
    return ", ".join(sorted({firing.evidence for firing in firings}))
