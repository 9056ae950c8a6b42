"""Parts of a question: the model under the task's head, lengths, priorities, what the data show."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from peftselect.errors import InputError, UnknownNameError
from peftselect.method import PROMPTED
from peftselect.problem import (
    MUSTS,
    TRAITS,
    DataProfile,
    Hardware,
    Preference,
    Priorities,
    Problem,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftselect.method import Method
    from peftselect.problem import BaseModel
    from peftselect.task import Row, Task

PREFERENCES: tuple[str, ...] = get_args(Preference)
#: ends of the names of classes that are saved with a masked language model's head
_MASKED = ("ForMaskedLM", "ForPreTraining")
#: lengths read from data are rounded up to a multiple of this, as the tensor cores like it
LENGTH_STEP = 8


def make_problem(
    task: Task,
    base: BaseModel,
    data: DataProfile,
    machine: Hardware,
    priorities: Priorities,
    batch_size: int,
    lengths: tuple[int | None, int | None],
    precision: str | None,
    quantization: str | None,
) -> Problem:
    """The question for one base model; ``lengths`` are those given (source, target), None where the data decide."""
    from peftselect.shapes import read_shape

    architecture = read_shape(base.config).architecture
    head = task.heads.get(architecture)
    if head is None:
        able = ", ".join(sorted(task.heads))
        raise InputError(
            f"{base.name} is of the {architecture} kind, which cannot serve {task.name}",
            f"{task.name} takes models of these kinds: {able}; for example --model {task.default_models[0]}",
        )
    shape = read_shape(base.config, head, data.num_labels or task.default_labels, new_pooler=base.lacks_pooler)
    generates = task.generates(head)
    longest = (data.source_tokens_p99 if task.cuts_inputs else data.source_tokens_max) or data.source_tokens_p50
    length = lengths[0] or _length(longest, task.default_max_length, 1 if shape.audio else LENGTH_STEP)
    target = (lengths[1] or _length(data.target_tokens_max, task.default_max_target_length)) if generates else 0
    if shape.longest_input is not None:
        if lengths[0] is not None and length > shape.longest_input:
            raise InputError(
                f"--max-length {length} is more than {base.name} can read",
                f"it hears {shape.longest_input} s" if shape.audio else f"its positions end at {shape.max_positions}",
            )
        length = min(length, shape.longest_input)
    return Problem(task, base, shape, data, machine, priorities, batch_size, length, target, precision, quantization)


def under(problem: Problem, method: Method) -> Problem:
    """The question under a head of its task that ``method`` serves, where the task has another one."""
    head = problem.task.head_for(problem.shape.architecture, method.heads)
    return problem if head is None else under_head(problem, head)


def under_head(problem: Problem, head: str) -> Problem:
    """The question under another head of its task; InputError where that must be trained and is not there."""
    from peftselect.shapes import read_shape

    if head == problem.shape.head.kind:
        return problem
    labels, base = problem.data.num_labels or problem.task.default_labels, problem.model
    made = [str(name) for name in base.config.get("architectures") or ()]
    if head in PROMPTED and made and not any(name.endswith(_MASKED) for name in made):
        raise InputError(
            f"{base.name} comes without the head of a masked language model (it is a {made[0]})",
            "take one that was published with it, for example --model roberta-base",
        )
    return replace(problem, shape=read_shape(base.config, head, labels, new_pooler=base.lacks_pooler))


def _length(tokens: int | None, default: int, step: int = LENGTH_STEP) -> int:
    """Tokens (or seconds) to allow for: what the data needs, rounded up, at most the task's default."""
    if not tokens:
        return default
    return min(math.ceil(tokens / step) * step, default) if default else tokens


def read_priorities(
    prefer: str, must: Iterable[str], max_time: str | float | None, traits: Iterable[str]
) -> Priorities:
    """What matters, checked name by name."""
    one_of("preference", prefer, PREFERENCES)
    for kind, names, known in (("need", must, MUSTS), ("trait", traits, TRAITS)):
        for name in names:
            one_of(kind, name, known)
    wanted: Preference = prefer  # type: ignore[assignment]  # checked against PREFERENCES above
    seconds = None if max_time is None else parse_duration(max_time)
    return Priorities(wanted, frozenset(must), seconds, frozenset(traits))


def one_of(kind: str, name: str, known: tuple[str, ...]) -> None:
    """UnknownNameError unless ``name`` is among ``known``."""
    if name not in known:
        raise UnknownNameError(kind, name, list(known))


def read_data(train: str | Path | None, task: Task, columns: Mapping[str, str] | None) -> list[Row] | None:
    """The training rows, if there is a file."""
    if train is None:
        return None
    from peftselect.data import read_rows

    return read_rows(train, task, columns or {})


def profile(
    rows: list[Row] | None, task: Task, base: BaseModel, given: DataProfile, train: str | Path | None
) -> DataProfile:
    """What is known of the data: what the user gave goes before what the file shows."""
    if rows is None:
        return given
    from peftselect.data import profile_rows

    read = profile_rows(rows, task, base)
    said = {name: value for name, value in vars(given).items() if value is not None and name != "origin"}
    return replace(read, origin=f"read from {Path(train or '').name}", **said)
