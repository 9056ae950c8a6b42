"""The command that runs a candidate: everything the user said, and what the recommendation settled."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, NothingFitsError, UnsupportedError
from peftselect.method import resolve_values
from peftselect.selector.recipes import RECIPE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Candidate
    from peftselect.problem import Problem
    from peftselect.selector.answer import Recommendation

PLACEHOLDER = "TRAIN.jsonl"


def run_command(
    problem: Problem, candidate: Candidate, train: object = None, columns: Mapping[str, str] | None = None
) -> str:
    """``peftselect run ...``: the same question with the method and its settings; quoted for a shell."""
    hardware, wishes, method = problem.hardware, problem.priorities, candidate.method
    words = ["peftselect", "run", "--task", problem.task.name, "--model", problem.model.reference]
    words += ["--train", str(train or PLACEHOLDER)]
    if columns:
        words += ["--columns", ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())]
    words += ["--method", method.name]
    for name, value in pinned(problem, candidate).items():
        words += ["--set", f"{name}={_text(value)}"]
    if hardware.vram_bytes is not None and hardware.origin == "given":
        words += ["--vram", f"{hardware.vram_bytes / 1024**3:g}"]
    if hardware.name == "cpu":
        words += ["--device", "cpu"]
    if hardware.devices > 1:
        words += ["--devices", str(hardware.devices)]
    if hardware.sharding != "none":
        words += ["--sharding", hardware.sharding]
    words += ["--batch-size", str(problem.batch_size), "--max-length", str(problem.max_length)]
    if problem.max_target_length:
        words += ["--max-target-length", str(problem.max_target_length)]
    if "precision" not in candidate.set_by:
        words += ["--precision", candidate.recipe.precision]
    if problem.quantization is not None:
        words += ["--quantization", problem.quantization]
    if wishes.must:
        words += ["--must", ",".join(sorted(wishes.must))]
    return shlex.join(words)


def pinned(problem: Problem, candidate: Candidate) -> dict[str, Any]:
    """The settings to write down: what differs from the method's own defaults, and how the batch is cut.

    The learning rate is left to the method where it follows from the other values.
    """
    method, shape, values = candidate.method, problem.shape, candidate.values
    defaults = resolve_values(method, shape)
    found = {
        name: value
        for name, value in values.items()
        if name != "learning_rate" and value is not None and value != defaults.get(name)
    }
    if resolve_values(method, shape, found)["learning_rate"] != values["learning_rate"]:
        found["learning_rate"] = values["learning_rate"]
    recipe = candidate.recipe
    found["num_train_epochs"] = recipe.num_train_epochs
    for name in candidate.set_by:
        if name in RECIPE_FIELDS and name not in ("learning_rate", "gradient_accumulation_steps"):
            found[name] = getattr(recipe, name)
    if recipe.gradient_accumulation_steps > 1:
        found["micro_batch_size"] = recipe.micro_batch_size
    if recipe.gradient_checkpointing:
        found["gradient_checkpointing"] = True
    if recipe.quantization is not None and method.quantized_base != "required":
        found["quantization"] = recipe.quantization
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def write_script(answer: Recommendation, file: str | Path, train: str | Path | None = None) -> str:
    """Write the best candidate that can be as a script for what trains the answer's task in place of ``run``.

    Returns the method's name. The first error is raised where none of the candidates can be written.
    """
    task, failed = answer.problem.task, None
    if not task.elsewhere:
        hint = "leave out --export"
        raise InputError(f"{task.name} is trained by peftselect run, so there is nothing to export", hint)
    if not task.writes_script:
        raise UnsupportedError(f"no script can be written for {task.elsewhere}", "leave out --export")
    for item in answer.candidates:
        try:
            script = task.export(answer.problem, item.candidate, str(train or PLACEHOLDER))
            Path(file).write_text(script, encoding="utf-8")
        except UnsupportedError as error:
            failed = failed or error
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error.strerror})", "give another --export") from error
        else:
            return item.method
    raise failed or NothingFitsError("no method fits", "the answer says what would admit one")
