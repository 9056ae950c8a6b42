"""The selection mapping: from a question to an answer.

compatible -> settings -> recipe that fits -> time -> scored -> ranked. Rules, memory and predictor meet here and
nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.facts import problem_facts
from peftselect.selector import constraints, reasons, scoring
from peftselect.selector.answer import Excluded, RankedCandidate, Reason, Recommendation
from peftselect.selector.consider import Question, Wishes, consider
from peftselect.selector.recipes import RECIPE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.knowledge import Rule
    from peftselect.method import Method
    from peftselect.predictor import Predictor
    from peftselect.problem import Problem

__all__ = [
    "RECIPE_FIELDS",
    "Excluded",
    "RankedCandidate",
    "Reason",
    "Recommendation",
    "Wishes",
    "fits_at_ease",
    "select",
]
EASY_ACCUMULATION = 4


def select(
    problem: Problem,
    methods: Mapping[str, Method],
    rules: Sequence[Rule] = (),
    predictor: Predictor | None = None,
    wishes: Wishes | None = None,
) -> Recommendation:
    """Answer ``problem`` with the methods, rules and predictor at hand.

    A hyperparameter or recipe field in ``wishes.settings`` goes before what defaults and rules say.
    """
    question = Question(problem, problem_facts(problem), rules, predictor, wishes or Wishes())
    offered: list[RankedCandidate] = []
    excluded: list[Excluded] = []
    for method in methods.values():
        outcome = consider(question, method, constraints.twin_on_quantized_base(method, methods.values()))
        if isinstance(outcome, Excluded):
            excluded.append(outcome)
        else:
            offered.append(outcome)
    ranked = scoring.rank(offered, problem.priorities.prefer)
    return Recommendation(problem, tuple(ranked), tuple(excluded), tuple(reasons.notes(problem, ranked)))


def fits_at_ease(answer: Recommendation) -> bool:
    """Whether the base model is no stretch for the budget: a candidate of the first group fits without gradient
    checkpointing, without a quantised base and with at most :data:`EASY_ACCUMULATION` micro-batches to a batch."""
    for item in answer.candidates:
        recipe = item.candidate.recipe
        plain = recipe.quantization is None and not recipe.gradient_checkpointing
        roomy = recipe.gradient_accumulation_steps <= EASY_ACCUMULATION and item.verdict.verdict == "fits"
        if item.tie_group == 1 and plain and roomy:
            return True
    return False
