"""The composition root: from plain arguments to a problem, a recommendation, a run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, NothingFitsError, UnsupportedError
from peftselect.hardware import hardware
from peftselect.plugin_manager import host
from peftselect.problem import DataProfile, Problem
from peftselect.question import make_problem, one_of, profile, read_data, read_priorities
from peftselect.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftselect.knowledge import Rule
    from peftselect.method import Method
    from peftselect.predictor import Predictor, Settings
    from peftselect.problem import BaseModel
    from peftselect.record import RunRecord
    from peftselect.selector import Recommendation, Trace, Tradeoffs, Wishes
    from peftselect.task import Row
    from peftselect.training.job import RunResult
    from peftselect.training.plan import Order, RunPlan
    from peftselect.training.progress import Observer

PRECISIONS: tuple[str, ...] = ("bf16", "fp16", "fp32")
QUANTIZATIONS: tuple[str, ...] = ("none", "int8", "nf4")
DEFAULT_BATCH_SIZE = 8
#: the user's own records and settings of late, and the predictor that was fitted with them
_LATEST_FIT: list[tuple[tuple[list[RunRecord], Settings], Predictor]] = []


def build_problem(
    task: str | Task,
    model: str | None = None,
    *,
    vram_gib: float | None = None,
    device: str = "auto",
    train: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    rows: list[Row] | None = None,
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
    default models is taken for which a method fits the budget at ease. ``train`` (or its ``rows``, already read) tells
    the number of examples, labels and lengths, unless they are given (``source_tokens``, ``target_tokens``: typical
    lengths). Lengths are
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
    priorities = read_priorities(prefer, must, max_time, traits)
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    if quantization is not None:
        one_of("quantization", quantization, QUANTIZATIONS)
    rows = read_data(train, chosen, columns) if rows is None else rows
    given = DataProfile(
        num_examples,
        source_tokens_p50=source_tokens,
        target_tokens_p50=target_tokens,
        num_labels=num_labels,
        origin="given" if num_examples or source_tokens else "assumed",
    )

    def question(base: BaseModel) -> Problem:
        data = profile(rows, chosen, base, given, train)
        return make_problem(
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
    trace: Trace = "auto",
    **question: Any,
) -> Recommendation:
    """Answer a question: which methods suit it, with what recipe, at what cost, and why.

    ``task`` may be a whole :class:`Problem`; otherwise the arguments are those of :func:`build_problem`. ``method``
    asks for one method only; ``settings`` sets hyperparameters and fields of the recipe by hand. ``trace``: "auto"
    traces the training step of the first candidate where the closed form could be wrong about whether it fits, in a
    process of its own; "always" and "never" are what they say.
    """
    from peftselect.selector import RECIPE_FIELDS, TRACES, Wishes

    one_of("way to trace", trace, TRACES)

    own = [name for name in settings or {} if name not in RECIPE_FIELDS]
    if own and method is None:
        raise InputError(f"which method is {', '.join(own)} for?", "settings of a method need --method NAME")
    problem = task if isinstance(task, Problem) else build_problem(task, model, **question)
    wishes = Wishes(settings or {}, question.get("train"), question.get("columns") or {})
    return _answer(problem, wishes, host().method(method) if method else None, trace)


def tradeoffs(
    answer: Recommendation, method: str | None = None, settings: Mapping[str, Any] | None = None
) -> Tradeoffs:
    """What no candidate of ``answer`` beats, and what each preference recommends; the rest is what was asked before."""
    from peftselect.selector import Wishes, weigh

    only, wishes = host().method(method) if method else None, Wishes(settings or {})
    return weigh(answer, lambda problem: _answer(problem, wishes, only))


def export(answer: Recommendation, file: str | Path, train: str | Path | None = None) -> str:
    """Write the best candidate that can be as a script for what trains the answer's task in place of ``run``.

    Returns the method's name. The first error is raised where none of the candidates can be written.
    """
    from peftselect.selector.command import write_script

    return write_script(answer, file, train)


def plan_run(task: str | Task | None = None, model: str | None = None, **arguments: Any) -> RunPlan:
    """Settle a run without loading torch: the question, the candidate, the rows, the checks of the data.

    Arguments are the fields of :class:`peftselect.training.plan.Order` and those of :func:`build_problem`. Without a
    task, a model and training data it is the embedded example that is run.
    """
    from peftselect.training import ranks
    from peftselect.training.plan import make_order

    return ranks.agreed(lambda: _settle(make_order(task, model, arguments)), cpu=arguments.get("device") == "cpu")


def plan_resumed(folder: str | Path) -> RunPlan:
    """The plan of an interrupted run towards ``folder``, as it was settled; InputError where there is none."""
    from peftselect.training import ranks
    from peftselect.training.plan import resumed_plan
    from peftselect.training.unfinished import asked_for_cpu

    return ranks.agreed(lambda: resumed_plan(folder, _settle), cpu=asked_for_cpu(folder))


def _settle(order: Order) -> RunPlan:
    from peftselect.training import ranks, sharding
    from peftselect.training.plan import make_plan

    asked = host().task(order.task) if isinstance(order.task, str) else order.task
    if asked.elsewhere:
        script = " --export FILE.py writes its script" if asked.writes_script else " advises on it"
        raise UnsupportedError(
            f"{asked.title} is not trained here but by {asked.elsewhere}",
            f"peftselect recommend --task {asked.name}{script}",
        )
    splits = order.read(asked)
    data: dict[str, Any] = {"train": order.train, "columns": order.columns}
    known: dict[str, Any] = {"rows": splits.train, "num_labels": len(splits.labels) or None}
    if order.question.get("devices", 1) == 1:
        stage = sharding.asked().stage
        shared = {"sharding": stage} if stage != "none" else {}
        order = replace(order, question={**shared, **order.question, "devices": ranks.count()})
    problem = build_problem(asked, order.model, **data, **known, **order.question)
    return make_plan(
        order, splits, recommend(problem, method=order.method, settings=order.settings, trace="never", **data)
    )


def run(task: str | Task | None = None, model: str | None = None, **arguments: Any) -> RunResult:
    """Train and score as :func:`plan_run` settles it, and write the output folder."""
    from peftselect.training.start import start

    observer = arguments.pop("observer", None)
    return start(plan_run(task, model, **arguments), observer)


def resume(folder: str | Path, observer: Observer | None = None) -> RunResult:
    """Go on with an interrupted run towards ``folder`` from its newest whole checkpoint, or from the start."""
    from peftselect.training.start import start

    return start(plan_resumed(folder), observer)


def _answer(
    problem: Problem, wishes: Wishes | None = None, only: Method | None = None, trace: Trace = "never"
) -> Recommendation:
    from peftselect.selector import select

    methods = {only.name: only} if only else host().methods()
    return select(problem, methods, rules(), predictor(), wishes, trace)


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
    if not own:
        return _shipped_predictor()
    learned = own, settings()
    if not _LATEST_FIT or _LATEST_FIT[-1][0] != learned:
        _LATEST_FIT[:] = [(learned, Predictor.fit([*_shipped(), *own], traits(), learned[1]))]
    return _LATEST_FIT[-1][1]


def traits() -> dict[str, frozenset[str]]:
    """Structural traits of every registered method by name."""
    from peftselect.features import method_traits

    return {name: method_traits(method) for name, method in host().methods().items()}


def settings() -> Settings:
    """The predictor's settings: the user's fitted ones, else the shipped ones."""
    from peftselect.predictor.settings import load

    return load()


@cache
def _shipped_predictor() -> Predictor:
    from peftselect.predictor import Predictor

    return Predictor.fit(_shipped(), traits(), settings())


@cache
def _shipped() -> tuple[RunRecord, ...]:
    from peftselect.results import shipped_records

    return tuple(shipped_records(host()))


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
