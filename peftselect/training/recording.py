"""A run as a record: question, candidate, what was predicted and what was measured, and in which environment."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from peftselect.facts import data_regime
from peftselect.record import RunRecord, Score
from peftselect.training.evaluation import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Candidate
    from peftselect.record import Status
    from peftselect.training.plan import RunPlan

SOURCE = "peftselect run"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "peftselect")


def make_record(
    plan: RunPlan,
    candidate: Candidate,
    device: str,
    status: Status,
    *,
    scores: Mapping[str, float] | None = None,
    baseline: Mapping[str, float] | None = None,
    measured: Mapping[str, Any] | None = None,
    note: str = "",
) -> RunRecord:
    """The record of a run that ended in ``status``; ``candidate`` is the one that this machine ran."""
    return RunRecord(
        source=SOURCE,
        status=status,
        problem=_problem(plan),
        candidate=_candidate(plan, candidate),
        metric=plan.problem.task.metric,
        scores=_scores(plan, scores),
        baseline=_scores(plan, baseline),
        measured={**(measured or {}), **_probe(plan)},
        predicted=_predicted(plan),
        environment={**environment(device), **({"suite": dict(plan.order.suite)} if plan.order.suite else {})},
        seed=plan.seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        note="; ".join(filter(None, (note, *plan.notes))),
    )


def _probe(plan: RunPlan) -> dict[str, Any]:
    """The candidates that were tried before, with their scores."""
    higher = plan.problem.task.higher_is_better
    return {} if plan.probe is None else {"probe": plan.probe.to_json(higher_is_better=higher)}


def _problem(plan: RunPlan) -> dict[str, Any]:
    problem, shape = plan.problem, plan.problem.shape
    number = len(plan.splits.train)
    return {
        "task": problem.task.name,
        "family": problem.task.family,
        "modality": problem.task.modality,
        "dataset": plan.dataset,
        "regime": data_regime(number),
        "num_train_examples": number,
        "num_test_examples": len(plan.splits.test),
        "model": problem.model.name,
        "model_type": shape.model_type,
        "architecture": shape.architecture,
        "total_parameters": shape.total_parameters,
        "max_length": problem.max_length,
    }


def _candidate(plan: RunPlan, candidate: Candidate) -> dict[str, Any]:
    chosen = plan.chosen
    marks: dict[str, Any] = {"baseline": True} if candidate.method.kind == "baseline" else {}
    if plan.stages:
        marks["stages"] = [item.to_json() for item in plan.stages]
    return {
        **marks,
        "method": candidate.method.name,
        "hyperparameters": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in candidate.values.items()
            if value is not None
        },
        "recipe": {name: value for name, value in asdict(candidate.recipe).items() if value is not None},
        "trainable_parameters": chosen.trainable_parameters,
        "trainable_percent": round(100 * chosen.trainable_parameters / chosen.total_parameters, 6),
    }


def _predicted(plan: RunPlan) -> dict[str, Any]:
    chosen = plan.chosen
    found: dict[str, Any] = {
        "peak_memory_bytes": chosen.memory.peak_bytes,
        "error_band_percent": chosen.memory.error_band_percent,
        "trainable_parameters": chosen.trainable_parameters,
        "adapter_bytes": chosen.adapter_bytes,
    }
    if chosen.train_seconds is not None:
        found["train_seconds"] = chosen.train_seconds.value
    return found


def _scores(plan: RunPlan, values: Mapping[str, float] | None) -> dict[str, Score]:
    higher = plan.problem.task.higher_is_better
    return {name: Score(round(value, 6), None, higher) for name, value in finite(dict(values or {})).items()}


def environment(device: str) -> dict[str, Any]:
    """Versions, device, and the commit of the working directory where there is one."""
    found: dict[str, Any] = {"python": platform.python_version(), "device": device, "platform": platform.platform()}
    found |= {name: version(name) for name in PACKAGES}
    if commit := _git("rev-parse", "HEAD"):
        found["git"] = commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    return found


def _git(*words: str) -> str:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
