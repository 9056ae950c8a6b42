"""A baseline's run: the base model is asked, perhaps with solved examples before each question; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import modeling
from peftselect.errors import UnsupportedError
from peftselect.training.session import pad_alike, score_as_is, score_base
from peftselect.training.splits import draw

if TYPE_CHECKING:
    from peftselect.task import TaskContext
    from peftselect.training.session import Session


def run_baseline(session: Session) -> Any:
    """Score the base model as it is, and once more as the baseline asks it; the model."""
    plan, candidate = session.plan, session.here.candidate
    session.observer.stage("loading the model")
    model, tokenizer = modeling.build(
        plan.problem, candidate, plan.splits.labels, 1, plan.seed, str(session.here.device),
        on_loaded=lambda base, tokenizer: score_base(session, base, tokenizer),
    )  # fmt: skip
    pad_alike(session.context, tokenizer)
    assert session.baseline is not None  # scored as the model was loaded
    session.tuned = session.baseline
    if wanted := candidate.method.examples(candidate.values):
        context, number = with_examples(session, wanted)
        session.measured["examples"] = number
        session.observer.stage(f"scoring with {number} examples in the prompt")
        session.tuned = score_as_is(session, model, context)
    session.tuned = replace(
        session.tuned, predictions=list(session.tuned.predictions), scores=dict(session.tuned.scores)
    )
    _, total = modeling.count_parameters(model)
    session.measured |= {**session.peak.measured(), "trainable_parameters": 0, "total_parameters": total}
    session.measured |= {"train_seconds": 0.0, "steps": 0, "tokens": 0}
    return model


def with_examples(session: Session, wanted: int) -> tuple[TaskContext, int]:
    """The context whose prompts begin with solved training rows, as many of ``wanted`` as fit the window; how many."""
    plan, context = session.plan, session.context
    task, shape = plan.problem.task, plan.problem.shape
    prompt = getattr(task, "prompt", None)
    own = context.template or getattr(task, "template", None)
    if prompt is None or own is None:
        raise UnsupportedError(
            f"{session.here.candidate.method.title} cannot word {task.name} as a prompt", "choose a task that generates"
        )
    solved = [
        f"{prompt(row, replace(context, architecture='decoder'))}{task.target_text(row)}".replace("{source}", "")
        for row in draw(plan.splits.train, wanted, plan.seed)
    ]
    window = (shape.max_positions or shape_limit(context)) - (
        context.max_target_length if context.architecture == "decoder" else 0
    )
    while True:
        before = "".join(f"{text}\n\n" for text in solved)
        length = len(context.tokenizer(before)["input_ids"]) + context.max_length
        if length <= window:
            return replace(context, template=before + own, max_length=length), len(solved)
        if not solved:
            return context, 0
        solved.pop()


def shape_limit(context: TaskContext) -> int:
    """Window of a model with relative positions: what its tokenizer was made for, or eight times the question."""
    return min(int(context.tokenizer.model_max_length), 8 * context.max_length)
