"""What the parts of a run share: the encoded rows, the machine, the scores, and a Trainer to predict or train with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftselect import modeling
from peftselect.training import callbacks, packing, trainer
from peftselect.training.evaluation import Evaluated, Evaluation, once
from peftselect.training.regression import start_at_mean
from peftselect.training.sampling import row_lengths

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.task import Objective, TaskContext
    from peftselect.training import machine, measurement
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer


@dataclass
class Session:
    """What the parts of a run hand to one another."""

    plan: RunPlan
    here: machine.Machine
    work: Path
    observer: Observer
    peak: measurement.PeakMemory
    context: TaskContext
    steps: int
    epochs: float
    train: Any
    monitor: Evaluation
    baseline: Evaluated | None = None
    tuned: Evaluated | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    #: what each stage did, by how it is written
    stage_reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: encoded training rows that the method reads when it is applied
    examples: list[Any] = field(default_factory=list)
    #: a loss in place of the model's own
    objective: Objective | None = None
    history: dict[str, Any] = field(default_factory=dict)


def pad_alike(context: TaskContext, tokenizer: Any) -> None:
    """The side on which the model wants its padding; a model without text has none."""
    if tokenizer is not None:
        context.tokenizer.padding_side = tokenizer.padding_side


def score_base(session: Session, model: Any, tokenizer: Any) -> None:
    """The base model's score on the test rows, as it is before any method is applied."""
    plan = session.plan
    pad_alike(session.context, tokenizer)

    def score() -> Evaluated:
        session.observer.stage(f"scoring the base model on {len(plan.splits.test):,} rows")
        return score_as_is(session, model, replace(session.context, prepended_positions=0))

    session.baseline = once(session.work / "baseline.json", score)
    start_as_scored(session, model)


def start_as_scored(session: Session, model: Any) -> None:
    """Let a regression begin at the mean of what it is to predict."""
    if getattr(model.config, "problem_type", None) == "regression":
        start_at_mean(model, session.plan.problem.shape.head, session.train["labels"])


def make_runner(session: Session, model: Any, mixed: str | None, hung_on: list[Any], *, training: bool) -> Any:
    plan, context, candidate = session.plan, session.context, session.here.candidate
    arguments = trainer.training_arguments(
        candidate.recipe,
        session.work,
        context.head,
        steps=session.steps,
        epochs=session.epochs,
        mixed=mixed,
        seed=plan.seed,
        cpu=session.here.device.type == "cpu",
        generates=plan.problem.task.generates(context.head),
        report_to=plan.order.report_to if training else (),
    )
    collator = plan.problem.task.collator(context, model)
    if candidate.recipe.packing:
        collator = packing.collator(context.tokenizer.pad_token_id, collator)
    grouped = training and candidate.recipe.group_by_length and not candidate.recipe.packing
    return trainer.make_trainer(
        model,
        arguments,
        collator,
        context.head,
        tokenizer=context.tokenizer or context.feature_extractor,
        train=session.train if training else None,
        lengths=row_lengths(session.train) if grouped else None,
        monitor=session.monitor if training else None,
        objective=(session.objective if training else None) or plan.problem.task.objective(context),
        optimizer=candidate.method.optimizer(model, candidate.values) if training else None,
        callbacks=hung_on or [callbacks.Tell(session.observer)],
    )


def score_as_is(session: Session, model: Any, context: TaskContext) -> Evaluated:
    """The model's score on the test rows, encoded as ``context`` says."""
    task, rows = session.plan.problem.task, session.plan.splits.test
    runner = make_runner(session, model, modeling.autocast(model, session.here.candidate.recipe), [], training=False)
    runner.data_collator = task.collator(context, model)
    return Evaluation(task, rows, context).timed(runner)
