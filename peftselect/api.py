"""The composition root: from plain arguments to a problem, a recommendation, a run."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from peftselect.errors import InputError, NothingFitsError, UnknownNameError
from peftselect.hardware import hardware
from peftselect.plugin_manager import host
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
from peftselect.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftselect.knowledge import Rule
    from peftselect.method import Method
    from peftselect.predictor import Predictor
    from peftselect.problem import BaseModel
    from peftselect.record import RunRecord
    from peftselect.selector import Recommendation, Wishes
    from peftselect.task import Row

PREFERENCES: tuple[str, ...] = get_args(Preference)
PRECISIONS: tuple[str, ...] = ("bf16", "fp16", "fp32")
QUANTIZATIONS: tuple[str, ...] = ("none", "int8", "nf4")
DEFAULT_BATCH_SIZE = 8
#: lengths read from data are rounded up to a multiple of this, as the tensor cores like it
LENGTH_STEP = 8


def build_problem(
    task: str | Task,
    model: str | None = None,
    *,
    vram_gib: float | None = None,
    device: str = "auto",
    train: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    num_examples: int | None = None,
    source_tokens: int | None = None,
    target_tokens: int | None = None,
    num_labels: int | None = None,
    max_length: int | None = None,
    max_target_length: int | None = None,
    batch_size: int | None = None,
    prefer: str = "quality",
    must: Iterable[str] = (),
    max_time: str | float | None = None,
    devices: int = 1,
    sharding: str = "none",
    traits: Iterable[str] = (),
    precision: str | None = None,
    quantization: str | None = None,
) -> Problem:
    """Turn what a user says into a question for the selector.

    ``model`` is a catalogue name, a folder with ``config.json`` or a hub id; without one the largest of the task's
    default models is taken for which a method fits the budget at ease. ``train`` is read for the number of examples,
    labels and lengths, unless they are given (``source_tokens`` and ``target_tokens`` are typical lengths). Lengths are
    tokens, ``vram_gib`` is GiB of one device, ``max_time`` seconds or text such as ``"2h"``. InputError (or a child)
    names the argument that cannot be used.
    """
    chosen = host().task(task) if isinstance(task, str) else task
    machine = hardware(vram_gib, device, devices, sharding)
    numbers = {
        "--num-examples": num_examples,
        "--source-tokens": source_tokens,
        "--target-tokens": target_tokens,
        "--num-labels": num_labels,
        "--max-length": max_length,
        "--max-target-length": max_target_length,
        "--batch-size": batch_size,
    }
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{option} {number} is too small", "give 1 or more")
    batch = batch_size or DEFAULT_BATCH_SIZE * devices
    if batch % devices:
        raise InputError(
            f"a batch of {batch} cannot be shared among {devices} devices", f"give --batch-size a multiple of {devices}"
        )
    priorities = _priorities(prefer, must, max_time, traits)
    if precision is not None:
        _one_of("precision", precision, PRECISIONS)
    if quantization is not None:
        _one_of("quantization", quantization, QUANTIZATIONS)
    rows = _read_rows(train, chosen, columns)
    given = DataProfile(
        num_examples,
        source_tokens_p50=source_tokens,
        target_tokens_p50=target_tokens,
        num_labels=num_labels,
        origin="given" if num_examples or source_tokens else "assumed",
    )

    def question(base: BaseModel) -> Problem:
        data = _profile(rows, chosen, base, given, train)
        return _problem(
            chosen, base, data, machine, priorities, batch, (max_length, max_target_length), precision, quantization
        )

    from peftselect.base_models import resolve_base_model

    if model is not None:
        return question(resolve_base_model(model))
    return _propose(chosen, [resolve_base_model(name) for name in chosen.default_models], question)


def recommend(
    task: str | Task | Problem,
    model: str | None = None,
    *,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **question: Any,
) -> Recommendation:
    """Answer a question: which methods suit it, with what recipe, at what cost, and why.

    ``task`` may be a whole :class:`Problem`; otherwise the arguments are those of :func:`build_problem`. ``method``
    asks for one method only; ``settings`` sets hyperparameters and fields of the recipe by hand.
    """
    from peftselect.selector import RECIPE_FIELDS, Wishes

    own = [name for name in settings or {} if name not in RECIPE_FIELDS]
    if own and method is None:
        raise InputError(f"which method is {', '.join(own)} for?", "settings of a method need --method NAME")
    problem = task if isinstance(task, Problem) else build_problem(task, model, **question)
    wishes = Wishes(settings or {}, question.get("train"), question.get("columns") or {})
    return _answer(problem, wishes, host().method(method) if method else None)


def _answer(problem: Problem, wishes: Wishes | None = None, only: Method | None = None) -> Recommendation:
    from peftselect.selector import select

    methods = {only.name: only} if only else host().methods()
    return select(problem, methods, rules(), predictor(), wishes)


@cache
def rules() -> list[Rule]:
    """Every rule of the built-ins and plugins."""
    from peftselect.knowledge import load_rules

    return load_rules(host().rule_files())


def predictor() -> Predictor:
    """The predictor, fitted from the shipped records and the user's own."""
    from peftselect.predictor import Predictor
    from peftselect.results import user_store

    own = user_store().read(broken=[])
    return Predictor.fit([*_shipped(), *own]) if own else _shipped_predictor()


@cache
def _shipped_predictor() -> Predictor:
    from peftselect.predictor import Predictor

    return Predictor.fit(_shipped())


@cache
def _shipped() -> tuple[RunRecord, ...]:
    from peftselect.results import shipped_records

    return tuple(shipped_records(host()))


def _problem(
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
    from peftselect.shapes import read_shape

    architecture = read_shape(base.config).architecture
    head = task.heads.get(architecture)
    if head is None:
        able = ", ".join(sorted(task.heads))
        raise InputError(
            f"{base.name} is of the {architecture} kind, which cannot serve {task.name}",
            f"{task.name} takes models of these kinds: {able}; for example --model {task.default_models[0]}",
        )
    shape = read_shape(base.config, head, data.num_labels or 2)
    generates = task.generates(head)
    length = lengths[0] or _length(data.source_tokens_p99 or data.source_tokens_p50, task.default_max_length)
    target = (lengths[1] or _length(data.target_tokens_max, task.default_max_target_length)) if generates else 0
    if shape.max_positions is not None:
        if lengths[0] is not None and length > shape.max_positions:
            raise InputError(
                f"--max-length {length} is more than {base.name} can read",
                f"its positions end at {shape.max_positions}",
            )
        length = min(length, shape.max_positions)
    return Problem(task, base, shape, data, machine, priorities, batch_size, length, target, precision, quantization)


def _length(tokens: int | None, default: int) -> int:
    """Tokens to allow for: what the data needs, rounded up, at most the task's default."""
    if not tokens:
        return default
    return min(math.ceil(tokens / LENGTH_STEP) * LENGTH_STEP, default) if default else tokens


def _priorities(prefer: str, must: Iterable[str], max_time: str | float | None, traits: Iterable[str]) -> Priorities:
    _one_of("preference", prefer, PREFERENCES)
    for kind, names, known in (("need", must, MUSTS), ("trait", traits, TRAITS)):
        for name in names:
            _one_of(kind, name, known)
    wanted: Preference = prefer  # type: ignore[assignment]  # checked against PREFERENCES above
    seconds = None if max_time is None else parse_duration(max_time)
    return Priorities(wanted, frozenset(must), seconds, frozenset(traits))


def _one_of(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, list(known))


def _read_rows(train: str | Path | None, task: Task, columns: Mapping[str, str] | None) -> list[Row] | None:
    if train is None:
        return None
    from peftselect.data import read_rows

    return read_rows(train, task, columns or {})


def _profile(
    rows: list[Row] | None, task: Task, base: BaseModel, given: DataProfile, train: str | Path | None
) -> DataProfile:
    """What is known of the data: what the user gave goes before what the file shows."""
    if rows is None:
        return given
    from peftselect.data import profile_rows

    read = profile_rows(rows, task, base)
    said = {name: value for name, value in vars(given).items() if value is not None and name != "origin"}
    return replace(read, origin=f"read from {Path(train or '').name}", **said)


def _propose(task: Task, models: list[BaseModel], question: Any) -> Problem:
    """The first (largest) default model which some method tunes at ease within the budget, else the last."""
    from peftselect.selector import fits_at_ease

    if not models:
        raise InputError(f"{task.name} proposes no base model", "name one with --model")
    problem: Problem | None = None
    for base in models:
        problem = question(base)
        if fits_at_ease(_answer(problem)):
            return problem
    if problem is None:
        raise NothingFitsError(f"no base model serves {task.name}", "name one with --model")
    return problem
