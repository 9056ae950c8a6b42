"""Stages at work: the base is changed before the method is applied, the trained model after it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import transformers

from peftselect import modeling
from peftselect.base_models import resolve_base_model
from peftselect.errors import InputError
from peftselect.stage import StageContext
from peftselect.training.evaluation import Evaluation
from peftselect.training.session import make_runner, score_as_is

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peftselect.problem import BaseModel
    from peftselect.task import Objective, Row
    from peftselect.training.plan import RunPlan
    from peftselect.training.session import Session
    from peftselect.training.stage_plan import PlannedStage

#: folder of the output that holds the changed base of an adapter
BASE_FOLDER = "base"


def changes(plan: RunPlan, place: str) -> list[PlannedStage]:
    """The stages of one place that change weights."""
    return [item for item in plan.stages if item.place == place and item.stage.changes_weights]


def change_base(session: Session, model: Any) -> None:
    """Do what stands before the method to the base, in place, and keep the result, which the adapter will need."""
    stages = changes(session.plan, "before")
    for item in stages:
        session.observer.stage(f"before training: {item}")
        changed = item.stage.change(model, item.values, _context(session, item))
        assert changed is model  # a base is changed in place
    if stages:
        model.name_or_path = str((session.plan.output / BASE_FOLDER).absolute())
        model.save_pretrained(session.work / BASE_FOLDER)
        for processor in session.context.processors:
            processor.save_pretrained(session.work / BASE_FOLDER)


def training_rows(session: Session, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows that a teacher has answered anew, where a stage wants that."""
    for item in session.plan.stages:
        rows = item.stage.rows(rows, item.values, _context(session, item))
    return rows


def objective(session: Session) -> Objective | None:
    """The loss that a stage puts in place of the model's own."""
    found = [item.stage.objective(item.values, _context(session, item)) for item in session.plan.stages]
    return next((item for item in found if item is not None), None)


def change_trained(session: Session, model: Any) -> Any:
    """Merge the adapter, do what stands after the method, and score what came of it."""
    stages = changes(session.plan, "after")
    if not stages:
        return model
    method = session.here.candidate.method
    if method.saves_adapter and method.kind != "baseline":
        model = modeling.merge(model)
    for item in stages:
        session.observer.stage(f"after training: {item}")
        model = item.stage.change(model, item.values, _context(session, item))
    assert session.tuned is not None  # it was scored when training ended
    session.measured["scores_before_stages"] = dict(session.tuned.scores)
    session.observer.stage("scoring what came of it")
    session.tuned = score_as_is(session, model, replace(session.context, prepended_positions=0))
    return model


def keep_base(session: Session, draft: Path) -> str:
    """Put the changed base beside its adapter; where it will lie, or nothing."""
    folder = session.work / BASE_FOLDER
    if not folder.exists() or session.plan.leaves != "adapter":
        return ""
    shutil.move(folder, draft / BASE_FOLDER)
    return str((session.plan.output / BASE_FOLDER).absolute())


def refuse_untrained(reference: str, head: str) -> BaseModel:
    """The model of this name; InputError where it has no trained head of this kind (language models bring theirs)."""
    base = resolve_base_model(reference)
    wanted = modeling.AUTO_CLASSES[head].removeprefix("AutoModel")
    made = [str(name) for name in base.config.get("architectures") or ()]
    if head not in ("causal_lm", "seq2seq_lm") and made and not made[0].endswith(wanted):
        raise InputError(
            f"{reference} was never trained for this task: its weights are those of {made[0]}",
            "give a model that `peftselect run --method full_finetuning` or `peftselect merge` wrote",
        )
    return base


def load_saved(head: str, folder: Path, **arguments: Any) -> Any:
    """A saved model under this head, in evaluation mode; ``arguments`` go to ``from_pretrained``."""
    loader = getattr(transformers, modeling.AUTO_CLASSES[head])
    model = loader.from_pretrained(folder, local_files_only=True, **arguments).eval()
    modeling.keep_one_kernel(model)
    return model


def _context(session: Session, item: PlannedStage) -> StageContext:
    plan, recipe, here = session.plan, session.here.candidate.recipe, session.here
    head = plan.problem.shape.head
    report = session.stage_reports.setdefault(f"{item.place} {item}", {})

    def load(reference: str) -> Any:
        base = refuse_untrained(reference, head.kind)
        whole, labels = replace(recipe, quantization=None), plan.splits.labels
        model = modeling.load_model(base, plan.problem.shape, whole, labels, str(here.device))
        return model.eval().requires_grad_(False)

    def predict(model: Any, rows: Sequence[Row]) -> list[Any]:
        context = replace(session.context, prepended_positions=0)
        runner = make_runner(session, model, modeling.autocast(model, recipe), [], training=False)
        runner.data_collator = plan.problem.task.collator(context, model)
        with torch.no_grad():
            return Evaluation(plan.problem.task, rows, context)(runner, score=False).predictions

    folder, changed = session.work / "stage", session.work / BASE_FOLDER
    base = str(changed) if changed.exists() else plan.problem.model.load_from
    return StageContext(
        plan.problem.shape, plan.seed, folder, load, partial(load_saved, head.kind), predict, base, report
    )
