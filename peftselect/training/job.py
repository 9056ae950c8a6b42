"""One run from start to end: encode, score the base model, apply the method, train, score, measure, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftselect import modeling
from peftselect.errors import PeftSelectError
from peftselect.method import ApplyContext
from peftselect.problem import parse_duration
from peftselect.processors import load_processors
from peftselect.results import user_store
from peftselect.task import TaskContext
from peftselect.training import (
    baseline,
    callbacks,
    checkpoints,
    machine,
    measurement,
    packing,
    papers,
    recording,
    saving,
    stages,
    trainer,
    unfinished,
)
from peftselect.training.degrade import ran_out
from peftselect.training.evaluation import Evaluation
from peftselect.training.progress import quiet
from peftselect.training.prompting import prompting
from peftselect.training.session import Session, make_runner, pad_alike, score_base
from peftselect.training.splits import draw

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.record import RunRecord
    from peftselect.training.interrupts import Stopper
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer

#: evaluations without a gain after which training ends
PATIENCE = 3
#: validation rows that are looked at while training, where text is generated and where it is not
MONITORED = {True: 200, False: 2000}


@dataclass(frozen=True)
class RunResult:
    """What a run gives back: the record, where the output lies, code that loads it, and what was noted on the way."""

    record: RunRecord
    output: Path
    snippet: str
    notes: tuple[str, ...] = ()


class DivergedError(PeftSelectError):
    """The loss became no number, or rose far above where it began."""


def train(plan: RunPlan, work: Path, observer: Observer, stopper: Stopper) -> RunResult:
    """Run ``plan`` in the folder ``work``, from its newest checkpoint on, and write everything into its ``result``.

    A run that runs out of memory or diverges is recorded too; then the error says so in one line.
    """
    here = machine.settle(plan.problem, plan.chosen.candidate, plan.cpu)
    machine.release()
    with quiet():
        try:
            session = _prepare(plan, here, work, observer)
            trains = here.candidate.method.kind != "baseline"
            model = _train(session, stopper) if trains else baseline.run_baseline(session)
            model = stages.change_trained(session, model)
        except DivergedError as error:
            unfinished.forget(work)
            _remember(plan, here, "diverged", error.message)
            raise
        except Exception as error:
            if not machine.is_out_of_memory(error):
                raise
            _remember(plan, here, "oom")
            raise ran_out(plan) from error
        with unfinished.saving(work):
            return _finish(session, model, checkpoints.result_folder(work))


def _prepare(plan: RunPlan, here: machine.Machine, work: Path, observer: Observer) -> Session:
    """Encode the rows and count the steps."""
    observer.stage("reading the data into tokens")
    problem, candidate, task = plan.problem, here.candidate, plan.problem.task
    peak = measurement.PeakMemory(here.cuda)
    tokenizer, extractor = load_processors(problem.model, problem.shape)
    context = TaskContext(
        tokenizer=tokenizer,
        feature_extractor=extractor,
        audio=problem.shape.audio,
        architecture=problem.shape.architecture,
        head=problem.shape.head.kind,
        max_length=here.max_length,
        max_target_length=candidate.recipe.max_target_length,
        labels=plan.splits.labels,
        prepended_positions=candidate.method.prepended_positions(candidate.values),
        template=plan.template,
        **prompting(plan, candidate),
    )
    rows = draw(plan.splits.validation, MONITORED[task.generates(context.head)], plan.seed)
    session = Session(plan, here, work, observer, peak, context, 0, 0.0, None, Evaluation(task, rows, context))
    encoded = task.encode_train(stages.training_rows(session, plan.splits.train), context)
    if candidate.recipe.packing:
        encoded = packing.pack(encoded, here.max_length + candidate.recipe.max_target_length, context.head)
    session.train = encoded
    session.steps, session.epochs = trainer.optimizer_steps(len(encoded), candidate.recipe, plan.max_steps)
    return session


def _train(session: Session, stopper: Stopper) -> Any:
    """Score the base model, apply the method, train, go back to the best state, score again."""
    plan, here = session.plan, session.here
    candidate, observer = here.candidate, session.observer
    observer.stage("loading the model")
    model, tokenizer = modeling.build(
        plan.problem,
        candidate,
        plan.splits.labels,
        session.steps,
        plan.seed,
        str(here.device),
        on_loaded=lambda base, tokenizer: _on_base(session, base, tokenizer),
    )
    pad_alike(session.context, tokenizer)
    _count(session, model)
    if candidate.recipe.packing:
        packing.check(model, f"{plan.problem.model.name} with {candidate.method.title}")
    best = callbacks.KeepBest(session.work, plan.problem.task.higher_is_better, PATIENCE)
    watch = callbacks.WatchLoss()
    applied = ApplyContext(
        plan.problem.shape, plan.problem.task.name, session.steps, plan.seed, candidate.recipe.quantization is not None
    )
    own = candidate.method.callbacks(candidate.values, applied)
    in_time = checkpoints.SaveInTime(parse_duration(plan.order.checkpoint_every), stopper, observer)
    looking_on = [best, watch, callbacks.WatchMemory(session.peak), callbacks.Tell(observer), in_time]
    mixed = modeling.autocast(model, candidate.recipe, forward_only=candidate.method.forward_only)
    runner = make_runner(session, model, mixed, [*own, *looking_on], training=True)
    earlier = unfinished.newest(session.work)
    after = f" (from step {earlier.step:,} on)" if earlier else ""
    trained = session.measured["trainable_parameters"]
    observer.stage(f"training {trained:,} parameters for {session.steps:,} steps{after}")
    checkpoints.fit(runner, earlier, stopper)
    seconds = runner.training_seconds
    if watch.trouble or _no_numbers(model):
        why = watch.trouble or f"a weight is no number after step {runner.state.global_step}"
        rate = candidate.recipe.learning_rate
        raise DivergedError(
            f"training diverged: {why}",
            f"lower the learning rate of {rate:.3g}, for example by ten: --set learning_rate={rate / 10:.3g}",
        )
    best.restore(model)
    _time(session, runner, seconds, best, watch)
    observer.stage(f"scoring the tuned model on {len(plan.splits.test):,} rows")
    session.tuned = Evaluation(plan.problem.task, plan.splits.test, session.context)(runner)
    return model


def _on_base(session: Session, base: Any, tokenizer: Any) -> None:
    """What is done before the method is applied: the base is scored, and changed where a stage says so."""
    score_base(session, base, tokenizer)
    stages.change_base(session, base)
    session.objective = stages.objective(session)


def _count(session: Session, model: Any) -> None:
    """Parameters as they really are; nothing to train is a mistake of the method's."""
    trainable, total = modeling.count_parameters(model)
    if not trainable:
        raise PeftSelectError(f"{session.here.candidate.method.title} left nothing to train", "choose another method")
    session.measured |= {"trainable_parameters": trainable, "total_parameters": total}


def _no_numbers(model: Any) -> bool:
    return any(item.requires_grad and not torch.isfinite(item).all() for item in model.parameters())


def _time(session: Session, runner: Any, seconds: float, best: callbacks.KeepBest, watch: callbacks.WatchLoss) -> None:
    tokens = int(runner.state.num_input_tokens_seen)
    session.measured |= {
        **session.peak.measured(),
        "train_seconds": round(seconds, 3),
        "evaluation_seconds": round(runner.evaluation_seconds, 3),
        "steps": int(runner.state.global_step),
        "steps_per_second": round(runner.state.global_step / seconds, 3),
        "train_flops": float(runner.state.total_flos),
    }
    if tokens:
        session.measured |= {"tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}
    if session.plan.trail:
        session.measured["trail"] = list(session.plan.trail)
    if best.best_step is not None:
        session.measured |= {"best_step": best.best_step, "stopped_early": best.stopped_early}
    losses = [{"step": step, "loss": loss} for step, loss in watch.losses]
    session.history = {"validation": runner.history, "training": losses}


def _finish(session: Session, model: Any, draft: Path) -> RunResult:
    """Write the adapter, then measure its file, then the record and the papers that go with it."""
    plan, here = session.plan, session.here
    session.observer.stage(f"writing {plan.output}")
    assert session.baseline is not None and session.tuned is not None  # both were scored above
    if plan.leaves != "nothing":
        saving.save_model(model, session.context.processors, draft)
    base = stages.keep_base(session, draft)
    session.measured |= measurement.afterwards(session.baseline, session.tuned, draft, session.measured)
    if session.stage_reports:
        session.measured["stages"] = {name: done for name, done in session.stage_reports.items() if done}
    record = recording.make_record(
        plan,
        here.candidate,
        measurement.device_name(here.device),
        "ok",
        scores=session.tuned.scores,
        baseline=session.baseline.scores,
        measured=session.measured,
        note="; ".join(here.notes),
    )
    own_tuner = hasattr(getattr(model, "active_peft_config", None), "saved_by")
    snippet = saving.loading_code(
        plan.problem, here.candidate, plan.splits.labels, plan.output,
        own_tuner=own_tuner, leaves=plan.leaves, base=base,
    )  # fmt: skip
    papers.write(draft, plan, here.candidate, record, snippet, session.baseline, session.tuned, session.history, base)
    user_store().append(record)
    return RunResult(record, plan.output, snippet, (*plan.notes, *here.notes))


def _remember(plan: RunPlan, here: machine.Machine, status: Any, note: str = "") -> None:
    """Failures teach as well: they go into the user's records."""
    device = measurement.device_name(here.device)
    user_store().append(recording.make_record(plan, here.candidate, device, status, note=note))
