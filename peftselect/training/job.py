"""One run from start to end: encode, score the base model, apply the method, train, score, measure, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.errors import PeftSelectError
from peftselect.record import RunRecord
from peftselect.results import user_store
from peftselect.training import (
    baseline,
    callbacks,
    checkpoints,
    energy,
    machine,
    measurement,
    papers,
    ranks,
    recording,
    reporting,
    saving,
    sharding,
    stages,
    unfinished,
)
from peftselect.training.degrade import ran_out
from peftselect.training.evaluation import Evaluation
from peftselect.training.progress import quiet
from peftselect.training.ready import make_ready, prepare
from peftselect.training.session import score_base

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.training.interrupts import Stopper
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer
    from peftselect.training.session import Session


@dataclass(frozen=True)
class RunResult:
    """What a run gives back: the record, where the output lies, code that loads it, and what was noted on the way."""

    record: RunRecord
    output: Path
    snippet: str
    notes: tuple[str, ...] = ()


class DivergedError(PeftSelectError):
    """The loss became no number, or rose far above where it began."""

    run_status = "diverged"


def train(plan: RunPlan, work: Path, observer: Observer, stopper: Stopper) -> RunResult:
    """Run ``plan`` in the folder ``work``, from its newest checkpoint on, and write everything into its ``result``.

    A run that runs out of memory or diverges is recorded too; then the error says so in one line.
    """
    here = machine.settle(plan.problem, plan.chosen.candidate, plan.cpu)
    machine.release()
    sharding.asked().before_loading()
    with quiet():
        try:
            session = prepare(plan, here, work, observer)
            trains = here.candidate.method.kind != "baseline"
            model = _train(session, stopper) if trains else baseline.run_baseline(session)
            model = stages.change_trained(session, model)
        except DivergedError as error:
            unfinished.forget(work)
            _remember(plan, here, "diverged", error.message)
            raise
        except Exception as error:
            if not machine.is_out_of_memory(error):
                sharding.asked().explain(error, here.candidate)
                raise
            _remember(plan, here, "oom")
            raise ran_out(plan) from error
        with unfinished.saving(work):
            return _finish(session, model, checkpoints.result_folder(work))


def _train(session: Session, stopper: Stopper) -> Any:
    """Score the base model, apply the method, train, go back to the best state, score again."""
    plan, here = session.plan, session.here
    candidate, observer = here.candidate, session.observer
    meter = energy.Meter()
    ready = make_ready(session, stopper, lambda base, tokenizer: _on_base(session, base, tokenizer), (meter,))
    model, runner, best, watch = ready.model, ready.runner, ready.best, ready.watch
    earlier = unfinished.newest(session.work)
    after = f" (from step {earlier.step:,} on)" if earlier else ""
    trained = session.measured["trainable_parameters"]
    observer.stage(f"training {trained:,} parameters for {session.steps:,} steps{after}")
    with meter.running():
        checkpoints.fit(runner, earlier, stopper)
    seconds = runner.training_seconds
    if why := ready.trouble:
        rate = candidate.recipe.learning_rate
        raise DivergedError(
            f"training diverged: {why}",
            f"lower the learning rate of {rate:.3g}, for example by ten: --set learning_rate={rate / 10:.3g}",
        )
    best.restore(model)
    _time(session, runner, seconds, best, watch)
    session.measured |= meter.measured()
    observer.stage(f"scoring the tuned model on {len(plan.splits.test):,} rows")
    session.tuned = Evaluation(plan.problem.task, plan.splits.test, session.context).timed(runner)
    return model


def _on_base(session: Session, base: Any, tokenizer: Any) -> None:
    """What is done before the method is applied: the base is scored, and changed where a stage says so."""
    score_base(session, base, tokenizer)
    stages.change_base(session, base)
    session.objective = stages.objective(session)


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
    """Write the adapter, then measure its file, then the record and the papers that go with it: in one process."""
    plan, here = session.plan, session.here
    sharding.asked().gather(model)
    if not ranks.is_first():
        told = ranks.share(None)
        return RunResult(RunRecord.from_json(told["record"]), plan.output, told["snippet"], (*plan.notes, *here.notes))
    session.observer.stage(f"writing {plan.output}")
    assert session.baseline is not None and session.tuned is not None  # both were scored above
    if plan.leaves != "nothing":
        saving.save_model(model, session.context.processors, draft)
    base = stages.keep_base(session, draft)
    reporting.keep_logs(session.work, draft)
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
    ranks.share({"record": record.to_json(), "snippet": snippet})
    return RunResult(record, plan.output, snippet, (*plan.notes, *here.notes))


def _remember(plan: RunPlan, here: machine.Machine, status: Any, note: str = "") -> None:
    """Failures teach as well: they go into the user's records (where memory runs out, one process knows)."""
    if status != "oom" and not ranks.is_first():
        return
    device = measurement.device_name(here.device)
    user_store().append(recording.make_record(plan, here.candidate, device, status, note=note))
