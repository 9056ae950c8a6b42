"""All that is settled before torch is loaded: the question, the candidate, the rows, what the checks found."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftselect import example
from peftselect.data_checks import check_data
from peftselect.errors import DataError, InputError, NothingFitsError, UnsupportedError
from peftselect.method import Recipe
from peftselect.problem import parse_duration
from peftselect.question import under
from peftselect.selector.answer import problem_to_json
from peftselect.training import sharding
from peftselect.training.devices import check_devices
from peftselect.training.halving import parse_budget
from peftselect.training.output import check, default_folder
from peftselect.training.probe import plan_probe, restored, verdict
from peftselect.training.reporting import check_reports
from peftselect.training.splits import data_set_name, read_splits
from peftselect.training.stage_plan import check_stages, read_stages
from peftselect.training.unfinished import fingerprint, read_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peftselect.data_checks import DataReport
    from peftselect.problem import Problem
    from peftselect.selector import RankedCandidate, Recommendation
    from peftselect.task import Task
    from peftselect.training.probe import Probe
    from peftselect.training.splits import Splits
    from peftselect.training.stage_plan import PlannedStage

#: settings which are part of the question, since the memory and the shape depend on them
_QUESTION_NUMBERS = ("batch_size", "max_length", "max_target_length")
_QUESTION_WORDS = ("precision", "quantization")
EXAMPLE = "embedded example"
#: seconds between checkpoints
CHECKPOINT_SECONDS = 300.0
#: constraints that a larger budget would lift
_BUDGETS = ("memory", "time")


@dataclass(frozen=True)
class Order:
    """What was asked for, before anything is read. ``question`` holds further arguments of ``build_problem``.

    ``train``, ``evaluation`` and ``test`` are files (or folders, or hub ids); ``limit`` takes at most that many rows
    of each, ``test_limit`` of the test rows; ``settings`` are hyperparameters and recipe fields by name; ``output`` is
    the folder to write (by default ``peftselect-output/TASK-METHOD-N``); ``template`` replaces the task's prompt
    (``{source}`` is the input).
    """

    task: str | Task
    model: str | None
    train: str | Path
    evaluation: str | Path | None = None
    test: str | Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    output: str | Path | None = None
    overwrite: bool = False
    allow_overlap: bool = False
    seed: int = 0
    max_steps: int | None = None
    limit: int | None = None
    test_limit: int | None = None
    template: str | None = None
    question: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    #: a length of time ("5m") or seconds; what a power cut may cost
    checkpoint_every: str | float = CHECKPOINT_SECONDS
    #: whether a cheaper recipe is tried where memory runs out
    degrade: bool = True
    #: the suite that the run belongs to (``name``), the run's ``key`` in it, and where on a cluster it runs
    suite: Mapping[str, Any] = field(default_factory=dict)
    #: stages as they are written (``prune:sparsity=0.5``), in order
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    #: what a probe of the best candidates may take: a length of time ("5m") or a number of steps ("60steps")
    probe: str | None = None
    #: what is told of losses and scores while training: "tensorboard", "wandb", "mlflow"
    report_to: Sequence[str] = ()

    def read(self, task: Task) -> Splits:
        """The rows of all three sets."""
        if self.output is not None:
            check(Path(self.output), self.overwrite)  # before the data, which may take a while
        limits = (self.limit, self.test_limit)
        return read_splits(task, self.train, self.evaluation, self.test, self.columns, limits, self.seed)


@dataclass(frozen=True)
class RunPlan:
    """One run, settled. ``dataset`` is the data's name in the record; ``template`` replaces the task's prompt."""

    order: Order
    problem: Problem
    chosen: RankedCandidate
    splits: Splits
    report: DataReport
    dataset: str
    output: Path
    overwrite: bool = False
    seed: int = 0
    max_steps: int | None = None
    cpu: bool = False
    template: str | None = None
    #: what memory ran out with, and what was tried instead
    trail: tuple[str, ...] = ()
    #: the other candidates, where the method was recommended
    runners_up: tuple[RankedCandidate, ...] = ()
    #: whether an earlier sitting left something to go on from
    resumed: bool = False
    #: whether the method was recommended, not asked for
    recommended: bool = False
    notes: tuple[str, ...] = ()
    #: what is done to the model before and after the method
    stages: tuple[PlannedStage, ...] = ()
    #: candidates to be tried briefly first, and what came of it
    probe: Probe | None = None

    @property
    def leaves(self) -> Literal["adapter", "model", "nothing"]:
        """What the run leaves behind: a stage after the method makes a whole model of what was trained."""
        method = self.chosen.candidate.method
        if any(item.place == "after" for item in self.stages):
            return "model"
        if method.kind == "baseline":
            return "nothing"
        return "adapter" if method.saves_adapter else "model"

    def to_json(self) -> dict[str, Any]:
        """What ``run --dry-run --json`` prints: the question and the candidate as ``recommend`` prints them."""
        splits = self.splits
        return {
            "schema": 1,
            "problem": problem_to_json(self.problem),
            "candidate": self.chosen.to_json(),
            "rows": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
            "stages": [item.to_json() for item in self.stages],
            **({"probe": self.probe.to_json()} if self.probe is not None else {}),
            "checks": self.report.to_json(),
            "seed": self.seed,
            "output": str(self.output),
            "notes": list(self.notes),
        }


def make_order(task: str | Task | None, model: str | None, arguments: Mapping[str, Any]) -> Order:
    """Tell orders from questions, settings of the question from settings of the method; fill in the example."""
    names = {item.name for item in fields(Order)}
    own = {name: value for name, value in arguments.items() if name in names and value is not None}
    question = {name: value for name, value in arguments.items() if name not in names}
    settings = dict(own.pop("settings", {}))
    dataset = EXAMPLE if task is None and model is None and "train" not in own else ""
    if dataset:
        task, model = example.settings().task, str(example.example_model())
        files = example.example_data()
        own = {"evaluation": files["validation"], "test": files["test"], **own, "train": files["train"]}
        own.setdefault("method", example.settings().method)
        values = example.settings().values if own["method"] == example.settings().method else {}
        values = {name: one for name, one in values.items() if name != "learning_rate" or "probe" not in own}
        settings = {**example.settings().recipe, **values, **settings}
    if task is None:
        raise InputError("which task? --task is missing", "`peftselect run` alone runs the embedded example")
    if "train" not in own:
        raise InputError("which data? --train is missing", "give --train FILE, or nothing for the embedded example")
    for name in (*_QUESTION_NUMBERS, *_QUESTION_WORDS):
        if name in settings:
            value = _whole(name, settings.pop(name)) if name in _QUESTION_NUMBERS else settings.pop(name)
            if question.get(name) is None:
                question[name] = value
    for name, value in ((name, own.get(name)) for name in ("limit", "test_limit", "max_steps")):
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small", "give 1 or more")
    if "checkpoint_every" in own:
        parse_duration(own["checkpoint_every"], "--checkpoint-every")
    if "probe" in own:
        parse_budget(own["probe"])
    check_reports(own.get("report_to", ()))
    if "{source}" not in own.get("template", "{source}"):
        raise InputError("--template lacks {source}", "{source} stands for the input text")
    question = {name: value for name, value in question.items() if value is not None}
    return Order(task, model, settings=settings, question=question, dataset=dataset, **own)


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InputError(f"{name}={value!r} is not a whole number", f"write --set {name}=NUMBER") from error


def make_plan(order: Order, splits: Splits, answer: Recommendation) -> RunPlan:
    """Choose the candidate, check the data, name the output."""
    chosen = choose(answer, order.method)
    problem = under(answer.problem, chosen.candidate.method)
    stages = read_stages(order.before, order.after)
    check_stages(stages, problem.shape, chosen.candidate)
    held_out = [] if splits.test_is_validation else splits.test
    report = check_data(problem.task, splits.train, splits.validation, held_out)
    refuse_overlap(report, order.allow_overlap)
    folder = Path(order.output) if order.output else default_folder(problem.task.name, chosen.method)
    sharding.asked().check(chosen.candidate)
    note = check_devices(problem, alone="--probe" if order.probe else "a stage" if stages else "")
    plan = RunPlan(
        order=order,
        problem=problem,
        chosen=chosen,
        splits=splits,
        report=report,
        dataset=order.dataset or data_set_name(order.train),
        output=folder,
        overwrite=order.overwrite,
        seed=order.seed,
        max_steps=order.max_steps,
        cpu=order.question.get("device") == "cpu",
        template=order.template,
        recommended=order.method is None,
        runners_up=answer.candidates[1:],
        stages=stages,
        notes=(*splits.notes, *((note,) if note else ())),
    )
    return plan if order.probe is None else replace(plan, probe=plan_probe(plan, order.probe))


def resumed_plan(folder: str | Path, settle: Callable[[Order], RunPlan]) -> RunPlan:
    """The plan of an interrupted run as it was: ``settle`` asks the same again, the candidate is the one settled on.

    InputError where there is nothing to go on with, DataError where the rows are others now.
    """
    document = read_order(folder)
    known = document["candidate"]
    try:
        order, recipe = Order(**document["order"]), Recipe(**known["recipe"])
    except TypeError as error:
        raise InputError(f"{folder}: the run was begun by another version ({error})", "start it anew") from error
    probed = document["probe"]
    method = known["method"] if probed is None else order.method  # its other candidates are asked for again
    plan = settle(replace(order, method=method, output=None, probe=None))
    if fingerprint(plan.splits) != document["rows"]:
        raise DataError(
            f"{order.train}: the data are not those that the run towards {folder} began with",
            "put the files back, or start anew with --overwrite",
        )
    ranked = {item.method: item for item in (plan.chosen, *plan.runners_up)}
    try:
        probe = None if probed is None else restored(probed, ranked)
        chosen = ranked[known["method"]]
    except KeyError as error:
        raise InputError(f"{folder}: {error} cannot be run any more", "start anew with --overwrite") from error
    found = (verdict(probe),) if probe is not None and probe.outcome.finished else ()
    candidate = replace(
        chosen.candidate,
        values={name: tuple(item) if isinstance(item, list) else item for name, item in known["values"].items()},
        recipe=recipe,
        set_by=known["set_by"],
    )
    return replace(
        plan,
        chosen=replace(chosen, candidate=candidate),
        problem=under(plan.problem, candidate.method),
        order=order,
        output=Path(folder),
        overwrite=order.overwrite,
        recommended=document["recommended"],
        trail=tuple(document["trail"]),
        runners_up=tuple(item for item in ranked.values() if item is not chosen),
        probe=probe,
        notes=(*plan.notes, *found, *document["trail"]),
        resumed=True,
    )


def choose(answer: Recommendation, method: str | None) -> RankedCandidate:
    """The recommended candidate; a one-line error where nothing fits, or what was asked for (``method``) does not."""
    if answer.recommended is not None:
        return answer.recommended
    if method is None or not answer.excluded:
        raise NothingFitsError("no method fits", "`peftselect recommend` with the same question says why for each")
    failed = answer.excluded[0]
    hint = f"try: {failed.cheapest_change}" if failed.cheapest_change else "`peftselect recommend` shows others"
    kind = NothingFitsError if failed.constraint in _BUDGETS else UnsupportedError
    raise kind(f"{failed.method} cannot be run: {failed.because}", hint)


def refuse_overlap(report: DataReport, allowed: bool) -> None:
    """Stop where rows to be scored on are trained on (thesis 5.4)."""
    if report.overlap and not allowed:
        raise DataError(report.overlap_sentence, "take them out of one of the two, or give --allow-overlap")
