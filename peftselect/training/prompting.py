"""Solved training rows beside the training itself: behind the question of a masked language model, with the words of
its labels, or as what a method reads when it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.method import PROMPTED
from peftselect.training.splits import draw

if TYPE_CHECKING:
    from peftselect.method import Candidate
    from peftselect.training.plan import RunPlan

#: columns of encoded rows that are examples; all else is there to read an answer off
_READ = frozenset({"input_ids", "attention_mask", "token_type_ids", "labels"})


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


def example_rows(encoded: Any, wanted: int, seed: int) -> list[dict[str, Any]]:
    """At most ``wanted`` encoded rows, drawn by the seed, with what a model reads and is to answer."""
    numbers = draw(list(range(len(encoded))), wanted, seed) if wanted else []
    return [{name: item for name, item in encoded[number].items() if name in _READ} for number in numbers]


def example_batch(rows: list[dict[str, Any]], collator: Any) -> dict[str, Any] | None:
    """The rows as one batch of tensors, None where there are none."""
    return dict(collator(rows)) if rows else None
