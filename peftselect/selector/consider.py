"""One method against one question: excluded with its reasons, or a candidate with its recipe and its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftselect.duration import predict_train_seconds
from peftselect.facts import method_facts
from peftselect.knowledge import Firing, Rule, fire
from peftselect.memory.changes import Change, cheapest_changes
from peftselect.memory.closed_form import FITS_MARGIN
from peftselect.memory.states import saved_bytes, total_parameters
from peftselect.method import Candidate, Recipe
from peftselect.question import under
from peftselect.selector import constraints, reasons, scoring
from peftselect.selector.answer import Excluded, FailedConstraint, Predicted, RankedCandidate
from peftselect.selector.command import run_command
from peftselect.selector.recipes import Fit, Settings, comparable_bytes, search, settle
from peftselect.words import size, span

if TYPE_CHECKING:
    from peftselect.duration import Interval
    from peftselect.method import Method
    from peftselect.predictor import Prediction, Predictor
    from peftselect.problem import Problem

#: cheapest changes that are named
WAYS_OUT = 3


@dataclass(frozen=True)
class Wishes:
    """What the user adds to the question: settings by hand, and where the data lie (for the command to paste)."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    train: object = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A problem with all that answers it, shared by the methods."""

    problem: Problem
    facts: Mapping[str, Any]
    rules: Sequence[Rule]
    predictor: Predictor | None
    wishes: Wishes


def consider(question: Question, method: Method, twin: str | None) -> RankedCandidate | Excluded:
    """Exclude ``method``, or price it. Every constraint that fails is found, not only the first."""
    problem = under(question.problem, method)
    question = replace(question, problem=problem)
    failed = constraints.cannot_serve(problem, method)
    if failed:
        change = {
            str(item.constraint): constraints.cheapest_change(item.constraint, method, problem) for item in failed
        }
        return constraints.exclude(method, failed, change)
    asked = settle(problem, method, {}, question.wishes.settings).values  # a method may need what has no default
    if why := method.unsupported(problem.shape, asked):
        return constraints.exclude(method, [FailedConstraint("unsupported", why.rstrip("."))], {})
    proposed = fire(question.rules, question.facts, method_facts(method, problem.shape, asked))
    settings = settle(problem, method, _proposals(proposed), question.wishes.settings)
    failed = constraints.unmet_needs(problem, method, settings.values, twin)
    if any(item.constraint == "unsupported" for item in failed):
        return constraints.exclude(method, failed, {})
    settled = fire(question.rules, question.facts, method_facts(method, problem.shape, settings.values))
    firings = [item for item in proposed if item.values] + [item for item in settled if not item.values]
    failed += [FailedConstraint("rule", f"{item.text} ({item.source})") for item in firings if item.excludes]
    changes = {str(item.constraint): constraints.cheapest_change(item.constraint, method, problem) for item in failed}
    fit = search(problem, method, settings, twin)
    if not fit.verdict.fits:
        failed.append(FailedConstraint("memory", _memory_sentence(problem, fit)))
        changes["memory"] = _memory_change(problem, method, settings, fit, twin)
    seconds = _seconds(problem, method, settings, fit)
    limit = problem.priorities.max_seconds
    if limit is not None and seconds is not None and seconds.low > limit:
        low, high = span(seconds.low), span(seconds.high)
        failed.append(FailedConstraint("time", f"training takes {low} to {high}, the budget is {span(limit)}"))
        changes["time"] = _time_change(fit, seconds.low, limit)
    if failed:
        return constraints.exclude(method, failed, changes)
    predictor = question.predictor
    prediction = predictor.predict(question.facts, method.name, method.records_like) if predictor else None
    return _candidate(question, method, settings, fit, seconds, firings, prediction)


def _candidate(
    question: Question,
    method: Method,
    settings: Settings,
    fit: Fit,
    seconds: Interval | None,
    firings: Sequence[Firing],
    prediction: Prediction | None,
) -> RankedCandidate:
    problem, values = question.problem, settings.values
    shape, wishes = problem.shape, question.wishes
    candidate = Candidate(method, values, fit.recipe, settings.set_by)
    trainable = method.trainable_parameters(shape, values)
    expected = prediction.expected if prediction else None
    return RankedCandidate(
        candidate=candidate,
        memory=fit.memory,
        verdict=fit.verdict,
        trainable_parameters=trainable,
        changed_parameters=method.changed_parameters(shape, values),
        total_parameters=total_parameters(method, shape, values),
        adapter_bytes=saved_bytes(method, shape, values),
        train_seconds=seconds,
        comparable_bytes=comparable_bytes(problem, method, settings),
        quality=scoring.quality(firings, prediction),
        expected_points=scoring.expected_points(prediction),
        noise_points=scoring.noise_points(prediction),
        tried=scoring.tried(firings, prediction),
        predicted=Predicted(expected.metric, expected.value, expected.low, expected.high) if expected else None,
        confidence=reasons.confidence(firings, prediction),
        reasons=reasons.reasons(firings, prediction, fit, settings),
        command=run_command(problem, candidate, wishes.train, wishes.columns),
    )


def _proposals(firings: Sequence[Firing]) -> dict[str, tuple[Any, str]]:
    """Settings that rules propose, with their source; the first rule that sets a name decides."""
    found: dict[str, tuple[Any, str]] = {}
    for firing in firings:
        for name, value in firing.values.items():
            found.setdefault(name, (value, firing.source))
    return found


def _seconds(problem: Problem, method: Method, settings: Settings, fit: Fit) -> Interval | None:
    return predict_train_seconds(problem, method, settings.values, fit.recipe)


def _memory_sentence(problem: Problem, fit: Fit) -> str:
    budget = problem.hardware.vram_bytes or 0
    each = " on each device" if problem.hardware.devices > 1 else ""
    tried = f", even with {' and '.join(fit.changes)}" if fit.changes else ""
    return f"it needs {size(fit.memory.device_bytes)}{each} of {size(budget)}{tried}"


def _memory_change(problem: Problem, method: Method, settings: Settings, fit: Fit, twin: str | None) -> str:
    """The cheapest ways to make it fit, or failing all of them the memory that it would take."""
    if twin is not None:
        return f"take {twin}, which is this on a 4-bit base"
    machine = problem.hardware
    changes = cheapest_changes(
        problem.shape, method, settings.values, fit.recipe, machine.vram_bytes,
        devices=machine.devices, sharding=machine.sharding,
    )  # fmt: skip
    enough = (1 + FITS_MARGIN) * fit.memory.peak_bytes + fit.memory.device_bytes - fit.memory.peak_bytes
    return "; or ".join(_way(change, fit.recipe) for change in changes[:WAYS_OUT]) or f"a device of {size(enough)}"


def _way(change: Change, recipe: Recipe) -> str:
    """A change in words, with the option that makes it where it is one that the search does not try by itself."""
    for name in ("optimizer", "precision"):
        if getattr(change.recipe, name) != getattr(recipe, name):
            return f"{change.text}: --set {name}={getattr(change.recipe, name)}"
    return change.text


def _time_change(fit: Fit, low_seconds: float, limit: float) -> str:
    epochs = fit.recipe.num_train_epochs
    shorter = int(epochs * limit / low_seconds)
    if shorter >= 1:
        return f"train {shorter} epoch{'s' * (shorter != 1)} instead of {epochs:g} (--set num_train_epochs={shorter})"
    return f"allow {span(low_seconds)} (--max-time {max(round(low_seconds / 60), 1)}m)"
