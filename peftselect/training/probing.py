"""A probe at work: each candidate is a run of its own that is stopped early, and the winner's run goes on.

A candidate trains with the seed, rows and learning-rate schedule of the whole run, and is left by a checkpoint. So the
winner goes on from its own state, and ends with the weights of a run that was given it by hand.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from peftselect.training import checkpoints, machine, unfinished
from peftselect.training.evaluation import finite
from peftselect.training.halving import Outcome, Tried, each, outcome_of, survivors
from peftselect.training.probe import loss_compares, title, verdict, with_candidate
from peftselect.training.progress import quiet
from peftselect.training.ready import make_ready, prepare
from peftselect.training.session import start_as_scored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peftselect.selector import RankedCandidate
    from peftselect.training.interrupts import Stopper
    from peftselect.training.plan import RunPlan
    from peftselect.training.probe import Probe
    from peftselect.training.progress import Observer

#: the part of a candidate's time that goes to training where nobody knows yet how long scoring takes
TRAINING_SHARE = 0.5


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Saves and leaves training at a step, or once a time is over."""

    def __init__(self, step: int | None, deadline: float | None) -> None:
        self.step = step
        self.deadline = deadline

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The only place where training can be left."""
        reached = self.step is not None and state.global_step >= self.step
        if reached or (self.deadline is not None and time.monotonic() >= self.deadline):
            control.should_save = control.should_training_stop = True


def probe(plan: RunPlan, work: Path, observer: Observer, stopper: Stopper) -> RunPlan:
    """Try the plan's candidates in ``work``; the plan with the winner, whose checkpoint lies in ``work`` then.

    An interrupted probe goes on where it was. Where no candidate could be trained the plan's own is kept.
    """
    settled = plan.probe
    assert settled is not None  # asked for
    if not settled.outcome.finished:
        with quiet():
            settled = _Halving(plan, settled, work, observer, stopper).run()
        plan = _with_winner(plan, settled)
    with unfinished.saving(work):
        unfinished.write_order(work, plan)
        _take_over(settled, work)
    return plan


class _Halving:
    """The rounds of one probe."""

    def __init__(self, plan: RunPlan, settled: Probe, work: Path, observer: Observer, stopper: Stopper) -> None:
        self.plan = plan
        self.work = work
        self.observer = observer
        self.stopper = stopper
        self.probe = settled
        self.higher = plan.problem.task.higher_is_better
        self.scoring_seconds: float | None = None

    def run(self) -> Probe:
        """All rounds that are left, and the winner."""
        known = self.work / unfinished.PROBE
        if known.exists():
            self.probe = replace(self.probe, outcome=outcome_of(json.loads(known.read_text(encoding="utf-8"))))
        left = list(range(len(self.probe.arms)))
        for number in range(self.probe.rounds):
            done = list(self.probe.outcome.rounds[number]) if number < len(self.probe.outcome.rounds) else []
            for arm in left[len(done) :]:
                done.append(self._try(number, arm, done, len(left) - len(done)))
                self._remember(number, done)
            left = survivors(done, self.higher)
            if len(left) < 2:
                break
        outcome = Outcome(self.probe.outcome.rounds, True, left[0] if left else None)
        self.probe = replace(self.probe, outcome=outcome)
        self.observer.stage(verdict(self.probe))
        return self.probe

    def _try(self, number: int, arm: int, done: list[Tried], waiting: int) -> Tried:
        """Train one candidate to the end of its round, and score it."""
        started = time.monotonic()
        before = self.probe.outcome.steps.get(arm, 0)
        target, deadline = self._bounds(number, before, done, waiting)
        folder = self.work / unfinished.PROBE_FOLDER / str(arm)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = self.probe.arms[arm]
        self.observer.stage(f"probe, round {number + 1} of {self.probe.rounds}: {title(chosen)}")
        step, score, loss, status = before, None, None, "ok"
        try:
            step, score, loss, status = self._train(chosen, folder, StopAt(target, deadline))
        except Exception as error:
            if not machine.is_out_of_memory(error):
                raise
            status = "oom"
            error.__traceback__ = None  # it would keep the model in memory
        machine.release()
        tried = Tried(arm, step, score, time.monotonic() - started, status, loss)
        metric = self.plan.problem.task.metric
        told = {"diverged": "it diverges", "oom": "it ran out of memory"}.get(status, f"no {metric}")
        told = told if score is None else f"{metric} {score:.4f}"
        self.observer.stage(f"  {told} after {step:,} step{'s' * (step != 1)}")
        return tried

    def _train(
        self, chosen: RankedCandidate, folder: Path, stop: StopAt
    ) -> tuple[int, float | None, float | None, str]:
        """(step, score and loss on the validation rows, status) of a candidate that goes on from where it was."""
        plan = with_candidate(self.plan, chosen)
        plan = replace(plan, order=replace(plan.order, report_to=()))  # only the run itself is told of
        here = machine.settle(plan.problem, chosen.candidate, plan.cpu)
        session = prepare(plan, here, folder, self.observer)
        ready = make_ready(session, self.stopper, lambda base, tokenizer: start_as_scored(session, base), (stop,))
        checkpoints.fit(ready.runner, unfinished.newest(folder), self.stopper, until=stop.step)
        step = int(ready.runner.state.global_step)
        if ready.trouble:
            return step, None, None, "diverged"
        started = time.monotonic()
        found = session.monitor(ready.runner)
        self.scoring_seconds = time.monotonic() - started
        loss = found.loss if loss_compares(self.plan, chosen) else None
        return step, finite(found.scores).get(plan.problem.task.metric), loss, "ok"

    def _bounds(self, number: int, before: int, done: list[Tried], waiting: int) -> tuple[int | None, float | None]:
        """(the step to come to, the time at which to stop all the same) of the next candidate of a round.

        Under a budget of time the first candidate of a round tells how many steps its part of the time holds.
        """
        budget, rounds = self.probe.budget, self.probe.rounds
        if budget.steps is not None:
            return before + each(budget.steps, rounds, waiting + len(done)), None
        assert budget.seconds is not None  # one of the two is set
        left = (number + 1) / rounds * budget.seconds - self.probe.outcome.seconds
        share = max(left, 0.0) / waiting
        scoring = (1 - TRAINING_SHARE) * share if self.scoring_seconds is None else self.scoring_seconds
        target = max((item.step for item in done), default=None)
        return target, time.monotonic() + share - scoring

    def _remember(self, number: int, done: list[Tried]) -> None:
        rounds = (*self.probe.outcome.rounds[:number], tuple(done))
        self.probe = replace(self.probe, outcome=replace(self.probe.outcome, rounds=rounds))
        with unfinished.saving(self.work):
            unfinished.write_whole(self.work / unfinished.PROBE, asdict(self.probe.outcome))


def _with_winner(plan: RunPlan, settled: Probe) -> RunPlan:
    """The plan with the winner in place of what was recommended."""
    done = replace(plan, probe=settled, notes=(*plan.notes, verdict(settled)))
    if settled.outcome.winner is None:
        return done
    chosen = settled.arms[settled.outcome.winner]
    others = tuple(_others(plan, chosen))
    return replace(with_candidate(done, chosen), runners_up=others)


def _others(plan: RunPlan, chosen: RankedCandidate) -> Iterator[RankedCandidate]:
    for item in (plan.chosen, *plan.runners_up):
        if item.method != chosen.method:
            yield item


def _take_over(settled: Probe, work: Path) -> None:
    """Make the winner's checkpoint that of the run; done again where a sitting was killed in between."""
    folder = work / unfinished.PROBE_FOLDER
    own = folder / str(settled.outcome.winner)
    if own.is_dir():
        for item in sorted(own.iterdir()):
            if item.is_dir() and (work / item.name).exists():
                shutil.rmtree(work / item.name)
            item.replace(work / item.name)
    shutil.rmtree(folder, ignore_errors=True)
    (work / unfinished.PROBE).unlink(missing_ok=True)
