"""The files beside the adapter: record, metrics, predictions and the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.training import output
from peftselect.training.evaluation import finite
from peftselect.training.model_card import model_card
from peftselect.training.prompting import prompting

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.method import Candidate
    from peftselect.record import RunRecord
    from peftselect.training.evaluation import Evaluated
    from peftselect.training.plan import RunPlan


def write(
    folder: Path,
    plan: RunPlan,
    candidate: Candidate,
    record: RunRecord,
    snippet: str,
    baseline: Evaluated,
    tuned: Evaluated,
    history: dict[str, Any],
    base: str = "",
) -> None:
    """``metrics.json``, ``predictions.jsonl``, ``serving.json``, ``advice.json``, ``README.md``, and ``run.json`` last.

    ``base`` is where the adapter's base lies, if a stage has changed it. ``history`` has the scores on the validation
    rows and the training losses, each with its step.
    """
    document = {
        "metric": plan.problem.task.metric,
        "rows": len(plan.splits.test),
        "scored_on": "validation" if plan.splits.test_is_validation else "test",
        "baseline": finite(baseline.scores),
        "scores": finite(tuned.scores),
        "history": history,
        "data": plan.report.to_json(),
    }
    output.write_json(folder / "metrics.json", _finite_only(document))
    output.write_json_lines(folder / "predictions.jsonl", _predictions(plan, baseline, tuned))
    if plan.leaves != "nothing":
        output.write_json(folder / output.SERVING_FILE, _serving(plan, candidate, base))
    output.write_json(folder / output.ADVICE_FILE, _finite_only(_advice(plan)))
    (folder / "README.md").write_text(model_card(plan, candidate, record, snippet), encoding="utf-8")
    output.write_json(folder / output.RECORD_FILE, record.to_json())


def _advice(plan: RunPlan) -> dict[str, Any]:
    """What was weighed before training: the candidate that was run, and the others where it was recommended."""
    others = [item.to_json() for item in plan.runners_up]
    return {"schema": 1, "recommended": plan.recommended, "chosen": plan.chosen.to_json(), "others": others}


def _serving(plan: RunPlan, candidate: Candidate, base: str) -> dict[str, Any]:
    """What it takes to put the result on its base model again and ask it as it was asked here."""
    problem, recipe = plan.problem, candidate.recipe
    return {
        "schema": 1,
        "task": problem.task.name,
        "model": base or problem.model.load_from,
        "method": candidate.method.name,
        "whole_model": plan.leaves == "model",
        "mergeable": candidate.method.mergeable,
        "labels": list(plan.splits.labels),
        "template": plan.template,
        "head": problem.shape.head.kind,
        **prompting(plan, candidate),
        "columns": dict(plan.order.columns),
        "train": str(plan.order.train),
        "prepended_positions": 0 if plan.leaves == "model" else candidate.method.prepended_positions(candidate.values),
        "precision": recipe.precision,
        "quantization": recipe.quantization,
        "max_length": recipe.max_length,
        "max_target_length": recipe.max_target_length,
        "batch_size": 2 * recipe.micro_batch_size,
    }


def _predictions(plan: RunPlan, baseline: Evaluated, tuned: Evaluated) -> list[Any]:
    task = plan.problem.task
    return [
        {
            "input": list(task.input_texts(row)),
            "target": task.target_text(row),
            "base": before,
            "prediction": after,
            "row": {name: cell for name, cell in row.items() if _is_json(cell)},
        }
        for row, before, after in zip(plan.splits.test, baseline.predictions, tuned.predictions, strict=True)
    ]


def _finite_only(value: Any) -> Any:
    """The document with numbers that JSON has not (a correlation that is none) as null."""
    if isinstance(value, dict):
        return {name: _finite_only(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite_only(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _is_json(value: Any) -> bool:
    """Whether a cell can be written as it is (recordings cannot)."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float | bool)
