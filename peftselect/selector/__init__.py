"""The selection mapping: from a question to an answer.

compatible -> settings -> recipe that fits -> time -> scored -> ranked. Rules, memory and predictor meet here and
nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.facts import problem_facts
from peftselect.selector import constraints, reasons, scoring
from peftselect.selector.answer import Excluded, RankedCandidate, Reason, Recommendation
from peftselect.selector.confirmation import TRACES, Trace, confirm
from peftselect.selector.consider import Question, Wishes, consider
from peftselect.selector.recipes import RECIPE_FIELDS
from peftselect.selector.tradeoffs import Tradeoffs, weigh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.knowledge import Rule
    from peftselect.method import Method
    from peftselect.predictor import Predictor
    from peftselect.problem import Problem

    Asked = tuple[Question, dict[str, Method]]

__all__ = [
    "RECIPE_FIELDS",
    "TRACES",
    "Excluded",
    "RankedCandidate",
    "Reason",
    "Recommendation",
    "Trace",
    "Tradeoffs",
    "Wishes",
    "fits_at_ease",
    "select",
    "weigh",
]
EASY_ACCUMULATION = 4
#: the latest question and what was found, if any
_LATEST: list[tuple[Asked, tuple[list[RankedCandidate], list[Excluded]]]] = []


def select(
    problem: Problem,
    methods: Mapping[str, Method],
    rules: Sequence[Rule] = (),
    predictor: Predictor | None = None,
    wishes: Wishes | None = None,
    trace: Trace = "never",
) -> Recommendation:
    """Answer ``problem`` with the methods, rules and predictor at hand.

    A hyperparameter or recipe field in ``wishes.settings`` goes before what defaults and rules say. ``trace`` has the
    first candidate's training step traced: "auto" where the closed form could be wrong about whether it fits.
    """
    question = Question(problem, problem_facts(problem), rules, predictor, wishes or Wishes())
    offered, excluded = _considered(question, methods)
    found = confirm(question, methods, scoring.rank(offered, problem.priorities.prefer), trace)
    notes = (*reasons.notes(problem, found.ranked), *found.notes)
    ranked = reasons.with_gaps(found.ranked) if problem.priorities.prefer == "quality" else found.ranked
    return Recommendation(problem, tuple(ranked), (*excluded, *found.excluded), notes)


def _considered(question: Question, methods: Mapping[str, Method]) -> tuple[list[RankedCandidate], list[Excluded]]:
    """Each method's candidate, or why it has none; of the latest question as it was found then.

    Where no model is named, one is proposed by what is recommended on it, and the same question is asked once more.
    """
    asked = (question, dict(methods))
    if _LATEST and _same(_LATEST[-1][0], asked):
        return _LATEST[-1][1]
    offered: list[RankedCandidate] = []
    excluded: list[Excluded] = []
    for method in methods.values():
        if not method.judged and len(methods) > 1:
            excluded.append(constraints.unjudged(method))
            continue
        outcome = consider(question, method, constraints.twin_on_quantized_base(method, methods.values()))
        if isinstance(outcome, Excluded):
            excluded.append(outcome)
        else:
            offered.append(outcome)
    _LATEST[:] = [(asked, (offered, excluded))]
    return offered, excluded


def _same(one: Asked, other: Asked) -> bool:
    """Whether two questions have the same answer: the very same parts, and the same wishes."""
    (first, methods), (second, others) = one, other
    parts = ("problem", "rules", "predictor")
    return (
        all(getattr(first, name) is getattr(second, name) for name in parts)
        and first.wishes == second.wishes
        and methods.keys() == others.keys()
        and all(methods[name] is others[name] for name in methods)
    )


def fits_at_ease(answer: Recommendation) -> bool:
    """Whether the base model is no stretch for the budget: the recommended candidate fits without gradient
    checkpointing, without a quantised base and with at most :data:`EASY_ACCUMULATION` micro-batches to a batch."""
    if answer.recommended is None:
        return False
    recipe = answer.recommended.candidate.recipe
    plain = recipe.quantization is None and not recipe.gradient_checkpointing
    roomy = recipe.gradient_accumulation_steps <= EASY_ACCUMULATION
    return plain and roomy and answer.recommended.verdict.verdict == "fits"
