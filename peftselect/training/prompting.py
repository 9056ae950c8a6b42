"""How a masked language model is asked: the words of the labels, and the solved rows that stand beside a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.method import PROMPTED
from peftselect.training.splits import draw

if TYPE_CHECKING:
    from peftselect.method import Candidate
    from peftselect.training.plan import RunPlan


def prompting(plan: RunPlan, candidate: Candidate) -> dict[str, Any]:
    """``label_words`` and ``demonstrations`` of a :class:`TaskContext`; nothing under any other head."""
    task, method, values = plan.problem.task, candidate.method, candidate.values
    if plan.problem.shape.head.kind not in PROMPTED:
        return {}
    of_each, splits = method.examples(values), plan.splits
    shown = [
        draw([row for row in splits.train if task.target_text(row) == label], of_each, plan.seed)
        for label in splits.labels
        if of_each
    ]
    turns = max(map(len, shown), default=0)
    rows = [rows[turn] for turn in range(turns) for rows in shown if turn < len(rows)]
    return {"label_words": method.label_words(values), "demonstrations": tuple(rows)}
